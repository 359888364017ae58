//! What the supervisor lets the attach server know: that workers have come or gone, and which lanes they have cut.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use microfaas_sys::eventfd;

/// Cuts that may wait to be looked at.
const CUTS_MAX: usize = 256;

/// A lane that a worker has cut by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) worker: usize,
    /// Of the worker.
    pub(crate) generation: u32,
    /// The lane's number in the worker.
    pub(crate) number: u32,
    pub(crate) reason: String,
}

/// See the module. Where no server reads it, nothing is kept.
#[derive(Debug, Default)]
pub(crate) struct Bulletin {
    reader: OnceLock<Arc<OwnedFd>>,
    cuts: Mutex<Vec<Cut>>,
}

impl Bulletin {
    /// The server's eventfd; set once.
    pub(crate) fn read_by(&self, wake: Arc<OwnedFd>) {
        self.reader.get_or_init(|| wake);
    }

    /// A worker serves, or has ended, or the node is shutting down: the seats say which.
    pub(crate) fn changed(&self) {
        if let Some(reader) = self.reader.get() {
            let _ = eventfd::signal(reader.as_fd());
        }
    }

    /// False where nobody can have such a lane: then the worker is lying.
    pub(crate) fn cut(&self, cut: Cut) -> bool {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        if self.reader.get().is_none() || cuts.len() == CUTS_MAX {
            return false;
        }
        cuts.push(cut);
        drop(cuts);
        self.changed();
        true
    }

    /// What was not read yet.
    pub(crate) fn take_cuts(&self) -> Vec<Cut> {
        std::mem::take(&mut self.cuts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
