//! How blocking callers wait for their answers without a system call while the worker is quick, and without a stampede when it is not.
//!
//! A waiter first spins, as long as waits of late have paid for: it drains the ring for everybody. Then it sleeps. One sleeper of a
//! lane *leads*: it alone announces a nap to the worker and sleeps on the lane's bell, which the worker rings. The others *follow*: each sleeps on a word of
//! its own, and whoever drains its completion wakes it. A leader that leaves wakes one follower, which leads then. So a completion wakes one
//! thread, or two where it is another's, however many are waiting.
//!
//! Every sleep is bounded by [`SLICE`], since the worker may lie, and every wake is followed by another look.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use microfaas_lane::host::Ticket;
use microfaas_lane::slots::Outcome;
use microfaas_sys::clock::{monotonic_ns, now_ns};
use microfaas_sys::futex;

use crate::lane::Lane;
use crate::notice::Expect;

/// Longest sleep without another look.
const SLICE: Duration = Duration::from_millis(20);
/// Looks between two readings of the clock while spinning, and between two chances for others to take the reader.
const LOOKS: u32 = 64;
/// Least spin, so that a lane whose calls have become quick is noticed.
const SPIN_NS_MIN: u64 = 2_000;

/// Waiting at one lane: private memory of the host.
#[derive(Debug)]
pub(crate) struct Park {
    /// Slot of the leader, plus one; 0 for none.
    leader: AtomicU32,
    /// How long waits of late took where spinning sufficed, smoothed, in nanoseconds; a hint.
    usual_ns: AtomicU32,
    spin_ns_max: u64,
}

impl Park {
    pub(crate) fn new(spin_ns_max: u64) -> Self {
        let usual_ns = AtomicU32::new(u32::try_from(spin_ns_max / 4).unwrap_or(u32::MAX));
        Self { leader: AtomicU32::new(0), usual_ns, spin_ns_max }
    }

    /// How long it pays to spin.
    fn spin_ns(&self) -> u64 {
        let usual = u64::from(self.usual_ns.load(Ordering::Relaxed));
        (SPIN_NS_MIN + 2 * usual).min(self.spin_ns_max)
    }

    /// Learns from a spin that ended after `spent_ns`, with the answer or without.
    fn learn(&self, spent_ns: u64, answered: bool) {
        let usual = u64::from(self.usual_ns.load(Ordering::Relaxed));
        let next = if answered { (7 * usual + spent_ns) / 8 } else { usual / 2 };
        self.usual_ns.store(u32::try_from(next).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// What a wait has led to.
#[derive(Debug)]
pub(crate) enum Waited {
    /// The call was settled.
    Settled(Outcome),
    /// The deadline has passed.
    TimeUp,
    /// Calls of this lane have gone to others, maybe this one.
    Woken,
}

impl Lane {
    /// Waits for the outcome of the caller's own call until its deadline.
    pub(crate) fn wait(&self, ticket: Ticket, deadline_ns: u64) -> Waited {
        if let Some(outcome) = self.spin(ticket) {
            return Waited::Settled(outcome);
        }
        loop {
            let Some(left) = left(deadline_ns) else {
                self.resign(ticket);
                return Waited::TimeUp;
            };
            let outcome = if self.lead(ticket) {
                self.sleep_leading(ticket, left)
            } else {
                self.sleep_following(ticket, left)
            };
            if let Some(outcome) = outcome {
                return Waited::Settled(outcome);
            }
            if self.went.has(ticket) {
                self.resign(ticket);
                return Waited::Woken;
            }
        }
    }

    fn spin(&self, ticket: Ticket) -> Option<Outcome> {
        if let Some(outcome) = self.look(ticket) {
            return Some(outcome);
        }
        let limit = self.park.spin_ns();
        if limit == 0 || !self.worker_is_elsewhere() {
            return None;
        }
        let start = now_ns();
        loop {
            let outcome = self.look_often(ticket);
            let spent = now_ns().saturating_sub(start);
            if outcome.is_some() || spent >= limit {
                self.park.learn(spent, outcome.is_some());
                return outcome;
            }
        }
    }

    /// One look, draining what is there.
    fn look(&self, ticket: Ticket) -> Option<Outcome> {
        if let Some(mut reader) = self.try_lock() {
            self.drain_with(&mut reader, Some(ticket));
        }
        self.host.outcome(ticket)
    }

    fn look_often(&self, ticket: Ticket) -> Option<Outcome> {
        let mut reader = self.try_lock();
        for _ in 0..LOOKS {
            if let Some(reader) = &mut reader
                && self.host.is_ready(reader)
            {
                self.drain_with(reader, Some(ticket));
            }
            if let Some(outcome) = self.host.outcome(ticket) {
                return Some(outcome);
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Becomes the leader, or is it already.
    fn lead(&self, ticket: Ticket) -> bool {
        let (leader, me) = (&self.park.leader, ticket.slot + 1);
        leader.load(Ordering::Relaxed) == me
            || leader.compare_exchange(0, me, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn sleep_leading(&self, ticket: Ticket, left: Duration) -> Option<Outcome> {
        let note = self.note(ticket);
        note.expect(Expect::Bell);
        let epoch = &self.host.host_words().futex_epoch;
        let bell = &self.host.worker_words().host_bell;
        let mut outcome = None;
        // This look must be a real one, so it waits for the reader: what is in the ring now, the worker does not ring for.
        let nap = epoch.nap(bell, || {
            let mut reader = self.lock();
            self.drain_with(&mut reader, Some(ticket));
            outcome = self.host.outcome(ticket);
            outcome.is_some() || self.has_news(&reader) || self.went.has(ticket)
        });
        if let Some(seen) = nap {
            let _ = futex::wait(bell.word().as_std(), seen, left.min(SLICE));
        }
        epoch.wake();
        if outcome.is_none() {
            outcome = self.look(ticket);
        }
        note.expect_nothing();
        if outcome.is_some() {
            self.resign(ticket);
        }
        outcome
    }

    /// Leaves the lead, where the caller has it, to one that follows; where nobody has it, the caller may be the one that was woken to lead. To be called by
    /// every waiter that has slept.
    pub(crate) fn resign(&self, ticket: Ticket) {
        let leader = &self.park.leader;
        match leader.load(Ordering::Relaxed) {
            0 => {}
            slot if slot == ticket.slot + 1 => leader.store(0, Ordering::Release),
            _ => return,
        }
        // Pairs with the fence in `Note::expect`: either a follower sees that nobody leads, or it is found here.
        fence(Ordering::SeqCst);
        if let Some(follower) = self.notes.iter().find(|note| note.sleeps()) {
            follower.nudge();
        }
    }

    fn sleep_following(&self, ticket: Ticket, left: Duration) -> Option<Outcome> {
        let note = self.note(ticket);
        let seen = note.seen();
        note.expect(Expect::Word);
        let outcome = self.look(ticket);
        if outcome.is_none() && !self.went.has(ticket) && self.park.leader.load(Ordering::Relaxed) != 0 {
            note.sleep(seen, left.min(SLICE));
        }
        note.expect_nothing();
        let outcome = outcome.or_else(|| self.look(ticket));
        if outcome.is_some() {
            self.resign(ticket);
        }
        outcome
    }
}

/// Time until the deadline; `None` when it has passed.
fn left(deadline_ns: u64) -> Option<Duration> {
    let now = monotonic_ns();
    (now < deadline_ns).then(|| Duration::from_nanos(deadline_ns - now))
}
