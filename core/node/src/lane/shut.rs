//! A lane that takes no more calls: why, and what becomes of those that are in flight.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use microfaas_lane::Status;
use microfaas_lane::host::{Reader, Ticket};
use microfaas_lane::slots::Outcome;

use super::Lane;

/// Why a lane takes no more calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Shut {
    /// It does not; it is in use.
    Open = 0,
    /// The worker died, or was found to hang.
    Lost = 1,
    /// The node is shutting down.
    Closed = 2,
    /// The node that the host was attached to is gone.
    NodeGone = 3,
    /// The worker was found to lie: nothing that it says of its calls is believed.
    Lied = 4,
}

impl Lane {
    pub(super) fn mark(&self, why: Shut) {
        let _ =
            self.shut.compare_exchange(Shut::Open as u32, why as u32, Ordering::Relaxed, Ordering::Relaxed);
        // Pairs with the fence of a submitter.
        fence(Ordering::SeqCst);
    }

    /// Takes what was completed, then sees that every call that is still in flight is settled or goes elsewhere. To be called when the worker is dead, or is not to be
    /// heard any more.
    pub(crate) fn shut_down(self: &Arc<Self>, why: Shut) {
        {
            let mut reader = self.lock();
            self.drain_with(&mut reader, None);
            self.mark(why);
        }
        self.resolve();
    }

    /// Sees that what is in flight on a lane that is shut is settled or goes elsewhere.
    #[cold]
    pub(super) fn resolve(self: &Arc<Self>) {
        let why = self.shut.load(Ordering::Relaxed);
        let is_lost = why == Shut::Lost as u32 || why == Shut::Lied as u32;
        if is_lost && self.hub.orphans.add(self) {
            self.hub.wake_supervisor();
        } else {
            self.settle_all(Status::WorkerLost);
        }
    }

    /// Settles what is in flight on a lane that is shut.
    pub(crate) fn settle_all(&self, status: Status) {
        let mut reader = self.lock();
        for ticket in self.host.in_flight() {
            let (never_started, was_counted) = self.withhold(ticket);
            self.settle(&mut reader, ticket, &Outcome::bare(status, never_started), was_counted);
        }
    }

    /// Settles one call in flight on a lane that is shut. `was_counted`: when its owner took it back.
    pub(crate) fn settle(&self, reader: &mut Reader, ticket: Ticket, outcome: &Outcome, was_counted: bool) {
        let is_here = self.leaves_worker(ticket);
        let counts = is_here && !was_counted;
        let function = self.note(ticket).function.load(Ordering::Relaxed);
        let is_lost = is_here && self.verdict(outcome.status) == Status::WorkerLost;
        // Nobody has the request afterwards.
        let request_id = if is_lost { self.request_id(reader, ticket) } else { None };
        let Some(completed) = self.host.settle(reader, ticket, outcome) else { return };
        if is_lost && !completed.abandoned {
            let (worker, Ticket { slot, generation }) = (self.worker, ticket);
            tracing::warn!(
                worker,
                function_number = function,
                slot,
                generation,
                request_id,
                "a call is lost with its worker"
            );
        }
        if counts {
            self.hub.decided.count(function, self.verdict(completed.status));
        }
        // Before it is outstanding no more: who sees that none is left finds them all counted.
        if is_here {
            self.counters.settled(&completed);
        }
        self.load.sub(1);
        if is_here && !completed.abandoned {
            self.tell(&[ticket]);
        }
    }

    /// A status that the host itself gives to calls on a lane that was shut.
    pub(crate) fn verdict(&self, status: Status) -> Status {
        if status == Status::WorkerLost && self.was_closed() { Status::Cancelled } else { status }
    }

    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Relaxed) != Shut::Open as u32
    }

    /// Whether calls that were settled by shutting the lane were cancelled rather than lost.
    pub(crate) fn was_closed(&self) -> bool {
        self.shut.load(Ordering::Relaxed) == Shut::Closed as u32
    }

    /// Whether calls were settled because there is no node any more.
    pub(crate) fn lost_its_node(&self) -> bool {
        self.shut.load(Ordering::Relaxed) == Shut::NodeGone as u32
    }

    /// Whether the worker was found to lie.
    pub(crate) fn has_lied(&self) -> bool {
        self.shut.load(Ordering::Relaxed) == Shut::Lied as u32
    }
}
