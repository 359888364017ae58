//! That something goes on: on a terminal, a line on the standard error that moves, as long as nothing else is printed.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Seldom, so that it is nothing to what is measured meanwhile.
const TICK: Duration = Duration::from_secs(1);

static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows what goes on, and for how long it has. Nothing where the standard error is no terminal.
pub(crate) fn begin(what: impl Into<String>) {
    if !stderr().is_terminal() {
        return;
    }
    let line = ProgressBar::new_spinner().with_message(what.into());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        line.set_style(style);
    }
    line.enable_steady_tick(TICK);
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
}

/// Prints something while it is shown.
pub(crate) fn aside(print: impl FnOnce()) {
    match &*SHOWN.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(line) => line.suspend(print),
        None => print(),
    }
}

/// Takes it away, where it is shown. To be called before anything is printed.
pub(crate) fn end() {
    if let Some(line) = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take() {
        line.finish_and_clear();
    }
}
