//! Taking completions, for all owners, and waking these.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use microfaas_lane::Violation;
use microfaas_lane::host::{Completed, Reader, Ticket};
use microfaas_lane::sync::full_fence;
use microfaas_sys::futex;

use super::{Lane, Shut};
use crate::ban::counts;

/// Completions taken under one fence.
const BATCH: usize = 32;

impl Lane {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Reader> {
        // A panic between two completions leaves the reader as good as before.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Reader>> {
        match self.reader.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Takes what has been completed, unless another thread is doing so. Returns how many.
    pub(crate) fn drain(&self) -> usize {
        if !self.host.is_ready_at(self.head.load(Ordering::Relaxed)) {
            return 0;
        }
        self.try_lock().map_or(0, |mut reader| self.drain_with(&mut reader, None))
    }

    /// Takes what has been completed, for all owners; `own` is the caller's, who needs no notice. At most two rings' worth, so that a
    /// worker cannot hold a thread here for ever. Returns how many.
    pub(crate) fn drain_with(&self, reader: &mut Reader, own: Option<Ticket>) -> usize {
        let mut total = 0;
        let limit = 2 * self.host.geometry().ring_entries() as usize;
        while total < limit && !self.is_shut() {
            let mut batch = [Ticket { slot: 0, generation: 0 }; BATCH];
            let mut count = 0;
            let mut settled = 0;
            let mut violation = None;
            while count < BATCH {
                let (mut is_here, mut was_wanted) = (true, false);
                // Before the owner knows: whoever has an answer finds it counted.
                let first = |completed: &Completed| {
                    is_here = self.judge(completed);
                    was_wanted = !completed.abandoned;
                    if is_here {
                        self.counters.told(completed);
                    }
                };
                match self.host.poll_with(reader, first) {
                    Ok(None) => break,
                    Ok(Some(completed)) => {
                        settled += 1;
                        if is_here && was_wanted && completed.abandoned {
                            self.counters.given_up(&completed);
                        }
                        if is_here && !completed.abandoned && Some(completed.ticket) != own {
                            batch[count] = completed.ticket;
                            count += 1;
                        }
                        if settled as usize == limit {
                            break;
                        }
                    }
                    Err(found) => {
                        violation = Some(found);
                        break;
                    }
                }
            }
            if settled > 0 {
                self.head.store(reader.head(), Ordering::Relaxed);
                self.load.sub(settled);
            }
            self.tell(&batch[..count]);
            total += settled as usize;
            if let Some(found) = violation {
                self.violated(found);
            }
            if settled == 0 || count < BATCH {
                break;
            }
        }
        total
    }

    /// Whether there may be something to take. Nothing ever comes of what lies in the ring of a lane that is shut.
    pub(crate) fn has_news(&self, reader: &Reader) -> bool {
        !self.is_shut() && self.host.is_ready(reader)
    }

    /// From now on each completion is looked up in its note.
    #[inline]
    pub(crate) fn watch_completions(&self) {
        if !self.watched.load(Ordering::Relaxed) {
            self.watched.store(true, Ordering::Relaxed);
        }
    }

    /// Before the owner knows: what it does next already finds the function banned. False where the call goes on in another lane.
    #[inline]
    pub(super) fn judge(&self, completed: &Completed) -> bool {
        if counts(completed.status) {
            let function = self.note(completed.ticket).function.load(Ordering::Relaxed);
            if self.hub.bans.fault(function, completed.is_unsafe) {
                self.hub.wake_supervisor();
            }
        }
        !self.watched.load(Ordering::Relaxed) || self.leaves_worker(completed.ticket)
    }

    /// A call in flight is about to be settled. False where it goes on in another lane.
    #[cold]
    pub(super) fn leaves_worker(&self, ticket: Ticket) -> bool {
        let history = self.note(ticket).history();
        if history.has_left() {
            return false;
        }
        if history.is_limited() {
            self.hub.quotas.release(history.name());
        }
        true
    }

    /// Wakes the owners of settled calls.
    pub(super) fn tell(&self, tickets: &[Ticket]) {
        if tickets.is_empty() {
            return;
        }
        // Pairs with the fence in `Note::expect`.
        full_fence();
        let mut leader = false;
        for ticket in tickets {
            leader |= self.note(*ticket).tell();
        }
        if leader {
            self.ring_leader();
        }
        self.hub.settled();
    }

    /// Wakes the owner of a call that is to look after it elsewhere.
    pub(crate) fn nudge_owner(&self, ticket: Ticket) {
        // Pairs with the fence in `Note::expect`.
        full_fence();
        if self.note(ticket).tell() {
            self.ring_leader();
        }
    }

    /// The worker lied: nothing it says counts any more. The supervisor sees to its calls.
    pub(super) fn violated(&self, violation: Violation) {
        self.counters.violation(violation);
        tracing::warn!(worker = self.worker, %violation, "worker broke the lane's protocol, it will be replaced");
        self.mark(Shut::Lied);
        // With few calls left it would be the least busy of all until the supervisor has come.
        self.load.close();
        self.hub.wake_supervisor();
    }

    /// Wakes the host's thread that sleeps on the lane's bell. The bell is the worker's word; the host may move it too,
    /// since it only ever means "look again".
    pub(super) fn ring_leader(&self) {
        let bell = &self.host.worker_words().host_bell;
        bell.ring();
        let _ = futex::wake_all(bell.word().as_std());
    }

    /// How far the worker has come with its completions, as far as they were taken.
    pub(crate) fn position(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }
}
