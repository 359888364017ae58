//! The log, on the standard error.

mod bound;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;
use std::{panic, thread};

use tracing_subscriber::filter::{FilterExt, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::LogFormat;
use crate::failure::Failure;
use writer::Queue;

/// How long the end waits for whoever reads the log.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// That there is a log. Dropped, it waits until what was logged is written, for a second at most.
#[derive(Debug)]
#[must_use]
pub(crate) struct Log(());

impl Drop for Log {
    fn drop(&mut self) {
        flush();
    }
}

/// Begins logging. `RUST_LOG` chooses what; without it, everything from INFO on. What repeats too fast is left out, and what nobody reads.
pub(crate) fn start(format: LogFormat) -> Result<Log, Failure> {
    let (filter, mistake) = filter();
    let filter = filter.and(bound::Bound::start().map_err(Failure::Runtime)?);
    let queue = Queue::start(std::io::stderr(), say_lost).map_err(Failure::Runtime)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(QUEUE.get_or_init(|| queue).clone());
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    log_panics();
    if let Some(mistake) = mistake {
        tracing::warn!(target: "microfaas::log", %mistake, "RUST_LOG is not understood, the log is that of `info`");
    }
    Ok(Log(()))
}

/// By `RUST_LOG`, and what is wrong with that.
fn filter() -> (EnvFilter, Option<ParseError>) {
    match std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty()) {
        None => (EnvFilter::new("info"), None),
        Some(text) => match EnvFilter::try_new(text) {
            Ok(filter) => (filter, None),
            Err(mistake) => (EnvFilter::new("info"), Some(mistake)),
        },
    }
}

/// Waits until what was logged is written, for a second at most. For an end that drops nothing.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_WITHIN);
    }
}

/// Says on the standard error what is no line of the log, after all that was logged, and waits for whoever reads it for a second at most. False where there is no log: then
/// nothing was said, and nobody else holds the standard error.
pub(crate) fn say(text: &[u8]) -> bool {
    let Some(queue) = QUEUE.get() else { return false };
    let _ = queue.clone().write_all(text);
    queue.flush(FLUSH_WITHIN);
    true
}

/// Logs panics like everything else. The standard library would write them to the standard error before it unwinds: where nobody reads that, nothing would be cleaned up.
fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("of an unknown type");
        let place = info.location().map(ToString::to_string);
        let thread = thread::current();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(target: "microfaas::panic", thread, place, backtrace, "panic: {message}");
    }));
}

fn say_lost(lines: u64) {
    tracing::warn!(target: "microfaas::log", lines, "the log was not read fast enough, lines were left out");
}
