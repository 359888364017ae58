//! The two signals that ask a server to end.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot::Sender;

use crate::{log, notify};

#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one's number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }

    /// Passes on the first one's number; the second ends the process, as a shell would report it.
    pub(super) async fn watch(mut self, first: Sender<i32>) {
        let number = self.next().await;
        tracing::info!(signal = number, "stopping; a second signal ends at once");
        notify::apart(notify::stopping).await;
        let _ = first.send(number);
        let number = self.next().await;
        log::flush();
        std::process::exit(128 + number);
    }
}
