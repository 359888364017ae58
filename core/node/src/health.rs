//! How well a node is.

use crate::{Node, WorkerState};

/// Whether a node can do what it was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Every worker takes calls.
    Up,
    /// Some workers take calls. Others are being replaced, or have ended so often that their replacements wait. Calls are served, by fewer.
    Degraded {
        /// Workers that take calls.
        up: u32,
        /// Workers that the node was started with.
        workers: u32,
    },
    /// No worker takes calls: those that come are refused, those that were accepted wait for a worker for a while.
    Down,
}

impl Node {
    /// How well the node is now. Of an attached host: how well the node is for it.
    #[must_use]
    pub fn health(&self) -> Health {
        let (mut up, mut workers) = (0, 0);
        for worker in self.workers() {
            workers += 1;
            up += u32::from(worker.state == WorkerState::Serving);
        }
        match up {
            0 => Health::Down,
            _ if up == workers => Health::Up,
            _ => Health::Degraded { up, workers },
        }
    }
}
