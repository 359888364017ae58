//! Looking after the calls of lanes, whoever owns their workers: what is due when, and which worker hangs.

use std::cell::LazyCell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use microfaas_lane::host::Ticket;
use microfaas_sys::clock::monotonic_ns;

use crate::hub::{Hub, LATEST_NS};
use crate::lane::Lane;
use crate::node::Shared;

/// What a look at one lane's calls found.
#[derive(Debug)]
pub(crate) struct Look {
    /// When to look again; `u64::MAX` where no call is out.
    pub(crate) next_ns: u64,
    /// A call that is long overdue, of a worker that has nothing else to show for the time.
    pub(crate) hung: Option<Ticket>,
}

/// Wakes the owners of overdue calls, and says when the next one is due.
pub(crate) fn look(lane: &Lane, stall_ns: u64) -> Look {
    let now = monotonic_ns();
    let mut found = Look { next_ns: u64::MAX, hung: None };
    // Once for all that are overdue: a worker chooses how many of thousands that are.
    let is_at_work = LazyCell::new(|| lane.is_at_work(now.saturating_sub(stall_ns)));
    for (ticket, deadline) in lane.in_flight() {
        // A call without a deadline keeps the insurance on as any other does: see `Hub::deadline_set`.
        let deadline = deadline.min(LATEST_NS);
        if now < deadline {
            found.next_ns = found.next_ns.min(deadline);
            continue;
        }
        lane.overdue(ticket);
        let hung = deadline.saturating_add(stall_ns);
        if now < hung {
            found.next_ns = found.next_ns.min(hung);
        } else if (lane.has_started(ticket) || !*is_at_work) && lane.drain() == 0 {
            found.hung = Some(ticket);
        }
    }
    found
}

/// Looks with `next_due`, which says when something is due, until nothing can have been missed: what was submitted before the second look is found
/// by it, and what comes after wakes the thread that watches.
pub(crate) fn watch(hub: &Hub, mut next_due: impl FnMut() -> u64) -> u64 {
    loop {
        let due = next_due();
        hub.look_again_at(due);
        if next_due() >= due {
            return due;
        }
    }
}

/// While calls are on their way: longest sleep without a look at all lanes, for what nobody was rung for.
const INSURANCE: Duration = Duration::from_millis(50);
/// The same where there are several workers, of which one may get what another has no time for.
const GLANCE: Duration = Duration::from_millis(10);
/// The same while one of them has several calls in its hands, or calls wait for a worker.
const CLOSE_LOOK: Duration = Duration::from_millis(4);

impl Shared {
    /// Supervisor: longest sleep now; `None` where no call is out.
    pub(crate) fn look_within(&self) -> Option<Duration> {
        if self.hub.orphans.any() || self.may_be_uneven() {
            return Some(CLOSE_LOOK);
        }
        self.calls_are_out().then_some(if self.seats.len() > 1 { GLANCE } else { INSURANCE })
    }

    pub(crate) fn calls_are_out(&self) -> bool {
        self.seats.iter().any(|seat| seat.load.outstanding() > 0)
    }

    /// Whether no call is on its way any more, here or from an attached host, or the time is up.
    pub(crate) fn drained_by(&self, time: Instant) -> bool {
        self.poll();
        !(self.calls_are_out() || self.bulletin.has_guests()) || Instant::now() >= time
    }

    /// Until when calls on their way are waited for, once the node is shutting down.
    pub(crate) fn stop_by(&self) -> Option<Instant> {
        *self.stop_by.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the node takes no more calls.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}
