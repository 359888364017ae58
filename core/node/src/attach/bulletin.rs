//! What the supervisor lets the attach server know: that workers have come or gone, and which lanes they have cut.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use microfaas_sys::clock::monotonic_ns;
use microfaas_sys::eventfd;

use crate::call::nanoseconds;

/// Cuts of one worker that may wait to be looked at: more than it has lanes.
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

/// Users, and groups.
type Admitted = (Vec<u32>, Vec<u32>);

/// See the module. Where no server reads it, nothing is kept.
#[derive(Debug, Default)]
pub(crate) struct Bulletin {
    reader: OnceLock<Arc<OwnedFd>>,
    cuts: Mutex<Vec<Cut>>,
    /// Hosts that are attached.
    guests: AtomicU32,
    turns_away: AtomicBool,
    /// Users and groups that may attach from now on.
    admitted: Mutex<Option<Admitted>>,
    over: AtomicBool,
    /// Until then nobody is judged, since the node has stood still: nanoseconds of the monotonic clock.
    forgives_until: AtomicU64,
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
        let waiting = cuts.iter().filter(|waiting| waiting.worker == cut.worker).count();
        if self.reader.get().is_none() || waiting == CUTS_MAX {
            return false;
        }
        cuts.push(cut);
        drop(cuts);
        self.changed();
        true
    }

    /// Server: hosts have come, or gone.
    pub(crate) fn attached(&self, change: i32) {
        self.guests.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
    }

    /// Whether hosts are attached, which may have calls on their way.
    pub(crate) fn has_guests(&self) -> bool {
        self.guests.load(Ordering::Relaxed) > 0
    }

    /// No host is let in any more, and those that are attached are to leave.
    pub(crate) fn turn_away(&self) {
        self.turns_away.store(true, Ordering::Release);
        self.changed();
    }

    /// Server: whether hosts are turned away.
    pub(crate) fn turns_away(&self) -> bool {
        self.turns_away.load(Ordering::Acquire)
    }

    /// Changes who may attach.
    pub(crate) fn admit(&self, users: Vec<u32>, groups: Vec<u32>) {
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some((users, groups));
        self.changed();
    }

    /// Server: what was not read yet.
    pub(crate) fn take_admitted(&self) -> Option<Admitted> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The node has stood still: nobody is judged for so long.
    pub(crate) fn forgive(&self, within: Duration) {
        let until = monotonic_ns().saturating_add(nanoseconds(within));
        self.forgives_until.store(until, Ordering::Relaxed);
    }

    /// Server: whether nobody is judged now.
    pub(crate) fn forgives(&self) -> bool {
        monotonic_ns() < self.forgives_until.load(Ordering::Relaxed)
    }

    /// No worker is left: the server ends.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.changed();
    }

    /// Server: whether it is to end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// What was not read yet.
    pub(crate) fn take_cuts(&self) -> Vec<Cut> {
        std::mem::take(&mut self.cuts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_lies_leaves_room_for_those_that_do_not() {
        let bulletin = Bulletin::default();
        let cut = |worker| Cut { worker, generation: 1, number: 1, reason: String::new() };
        assert!(!bulletin.cut(cut(0)), "nobody can have attached");
        bulletin.read_by(Arc::new(eventfd::create().unwrap()));
        assert_eq!((0..2 * CUTS_MAX).filter(|_| bulletin.cut(cut(0))).count(), CUTS_MAX);
        assert!(bulletin.cut(cut(1)));
        assert_eq!(bulletin.take_cuts().len(), CUTS_MAX + 1);
        assert!(bulletin.cut(cut(0)));
    }
}
