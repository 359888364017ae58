//! From a function's number to a slot for its call: what is known before a call is accepted, and which worker gets it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use microfaas_lane::host::{ReserveError, Reserved};
use microfaas_lane::message::message_len;

use crate::call::{FunctionHandle, Prepared};
use crate::lane::Lane;
use crate::names::Entry;
use crate::node::{Shared, Stats};
use crate::notice::History;
use crate::{CallError, Scarce};

impl Shared {
    /// See [`Node::prepare`](crate::Node::prepare). `held_up` is where a thread may be held up for as long as it takes to deploy, or for a host to attach to another node.
    pub(super) fn prepare(
        &self,
        name: u32,
        (body_max, meta_bytes): (usize, usize),
        held_up: impl FnOnce(),
    ) -> Result<Prepared, CallError> {
        let resolve = || self.names.resolve(name).ok_or(CallError::UnknownFunction);
        // Before there is a slot: whether there is one says nothing of what is banned.
        let before = resolve()?;
        self.hub.bans.check(before.function)?;
        held_up();
        let len = message_len(body_max, meta_bytes).unwrap_or(usize::MAX);
        let (lane, reserved) = self.reserve(len, name, before)?;
        let mut prepared = Prepared::new(lane, reserved, body_max);
        // The numbers of one node's workers mean nothing to another's: those that go into the slot are looked up when its lane is known, of which the table was there first.
        let entry = resolve()?;
        if entry.function != before.function {
            self.hub.bans.check(entry.function)?;
        }
        let is_limited = entry.concurrency != 0;
        if is_limited && !self.hub.quotas.admit(name, entry.concurrency) {
            let retry_after = self.hub.quotas.retry_after(name);
            return Err(CallError::Overloaded { about: Scarce::Concurrency, retry_after });
        }
        prepared.call(entry, History::new(name, is_limited));
        Ok(prepared)
    }

    /// Takes a slot for a request of `len` bytes at the worker that is the best for it, or at another one where it has no slot.
    fn reserve(&self, len: usize, name: u32, function: Entry) -> Result<(Arc<Lane>, Reserved), CallError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(CallError::Closed);
        }
        let best = self.best_for(function).ok_or(CallError::NoWorker)?;
        let mut scarce = None;
        let count = self.seats.len();
        for i in (best..count).chain(0..best) {
            let Some(lane) = self.seats[i].lane() else { continue };
            if lane.is_shut() {
                continue;
            }
            match lane.host.reserve(len) {
                Ok(reserved) if !lane.may_have(reserved.slot(), name) && self.has_others(name) => {
                    lane.host.cancel_reservation(reserved);
                    scarce = Some(Scarce::Share);
                }
                Ok(reserved) => {
                    lane.load().add();
                    self.sends(i, function);
                    return Ok((lane, reserved));
                }
                Err(ReserveError::TooLarge { max }) => return Err(CallError::TooLarge { len, max }),
                Err(ReserveError::Exhausted) => scarce = scarce.or(Some(Scarce::Slots)),
            }
        }
        Err(scarce.map_or(CallError::NoWorker, |about| self.overloaded(about)))
    }

    /// Whether there are functions beside the one of this name, for which slots can be kept.
    #[cold]
    fn has_others(&self, name: u32) -> bool {
        self.catalog.load().functions.iter().any(|info| info.id != name)
    }

    /// What a caller is told who gets nothing now.
    #[cold]
    fn overloaded(&self, about: Scarce) -> CallError {
        let (mut stats, mut outstanding) = (Stats::default(), 0);
        for seat in &self.seats {
            seat.counters.add_to(&mut stats);
            outstanding += u64::from(seat.load.outstanding());
        }
        let done = stats.completed.iter().sum::<u64>() + stats.abandoned;
        CallError::Overloaded { about, retry_after: self.hub.pace.retry_after(done, outstanding) }
    }

    /// The first of the least busy, so that a lone caller keeps to one worker, whose caches are warm. One that is about to end only where there is no other.
    pub(crate) fn least_busy(&self) -> Option<usize> {
        let seats = self.seats.iter().enumerate();
        let loads = seats.filter_map(|(i, seat)| Some((seat.load.is_leaving(), seat.load.get()?, i)));
        loads.min().map(|(_, _, i)| i)
    }

    /// Counts a call that was not accepted.
    #[cold]
    pub(super) fn refused(&self, handle: FunctionHandle, error: &CallError) {
        let number = self.names.resolve(handle.id).map_or(u32::MAX, |entry| entry.function);
        self.hub.decided.count(number, error.status());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moves::tests::{lane, node};

    /// As when the node of an attached host is restarted with other functions.
    #[test]
    fn a_caller_who_was_held_up_names_the_function_as_the_lanes_worker_knows_it() {
        let entry = |function| Some(Entry { function, deadline_ns: u64::MAX, concurrency: 0, ..Entry::NONE });
        let (shared, mut old) = node(1);
        shared.names.publish(&[entry(5), entry(6)]);
        let (mut old, mut new) = (old.remove(0), None);
        shared.seats[0].open(Arc::clone(&old.0));
        let restart = || {
            shared.seats[0].close();
            shared.names.publish(&[entry(6), entry(5)]);
            let (lane, worker) = lane(&shared, 0);
            shared.seats[0].open(lane);
            new = Some(worker);
        };
        let prepared = shared.prepare(0, (8, 0), restart).unwrap();
        let call = prepared.submit(8, &[], None).unwrap();
        assert_eq!((old.1.next_function(), new.unwrap().next_function()), (None, Some(6)));
        drop(call);
        // One that is gone, too; the slot comes back.
        let gone = || shared.names.publish(&[None, entry(5)]);
        assert!(matches!(shared.prepare(0, (8, 0), gone), Err(CallError::UnknownFunction)));
        assert_eq!(shared.seats[0].load.outstanding(), 1, "the call that the worker has not answered");
    }
}
