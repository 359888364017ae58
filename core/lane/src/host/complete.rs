//! A call's way back: its completion is polled and checked, its response copied, its slot released.
#![expect(unsafe_code, reason = "copies out of the worker's memory")]

use super::{HostLane, Memory, Ticket};
use crate::copy::copy_out;
use crate::layout::{LINE, RING, Region};
use crate::message::message_len;
use crate::prefetch::prefetch;
use crate::ring::Entry;
use crate::slots::{Outcome, Settled};
use crate::status::{Status, Violation};
use crate::worker::Completion;

/// Most CPU time that a completion is believed, in nanoseconds (three days): a sum of 65,536 of them does not overflow.
pub const CPU_NS_MAX: u64 = 1 << 48;

/// The position in the completion ring. There is one for each lane, made with it; whoever holds it may poll.
#[derive(Debug)]
pub struct Reader {
    pub(super) head: u64,
    pub(super) lane: u64,
}

impl Reader {
    /// Where it is: for [`HostLane::is_ready_at`].
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }
}

/// A completion that [`HostLane::poll`] has checked and recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// The call.
    pub ticket: Ticket,
    /// The verdict.
    pub status: Status,
    /// Nobody waits for it; its slot is free again.
    pub abandoned: bool,
    /// The function broke memory safety, says the worker.
    pub is_unsafe: bool,
}

impl<M: Memory> HostLane<M> {
    /// Whether `poll` may find something. One relaxed load.
    #[inline]
    #[must_use]
    pub fn is_ready(&self, reader: &Reader) -> bool {
        self.ring(Region::Up).is_ready(reader.head)
    }

    /// As [`is_ready`](Self::is_ready) for a reader that was at position `head` at some time: also true where it may have gone on since.
    #[inline]
    #[must_use]
    pub fn is_ready_at(&self, head: u64) -> bool {
        self.ring(Region::Up).is_ready(head)
    }

    /// Reads one completion, checks it and records its outcome.
    ///
    /// # Errors
    /// A [`Violation`]; the lane must not be polled again, and the worker must go.
    ///
    /// # Panics
    /// Where the reader is of another lane.
    #[inline]
    pub fn poll(&self, reader: &mut Reader) -> Result<Option<Completed>, Violation> {
        self.poll_with(reader, |_| ())
    }

    /// As [`poll`](Self::poll); `first` is told of a completion that was checked, before its owner can find the outcome. One that is wanted then may be given up still: then
    /// what is returned says so.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    ///
    /// # Panics
    /// As [`poll`](Self::poll).
    #[inline]
    pub fn poll_with(
        &self,
        reader: &mut Reader,
        first: impl FnOnce(&Completed),
    ) -> Result<Option<Completed>, Violation> {
        self.assert_reader(reader);
        let Some(entry) = self.ring(Region::Up).read(reader.head)? else { return Ok(None) };
        let (ticket, outcome, is_unsafe) = self.check(&entry)?;
        self.prefetch_after(reader.head, ticket.slot);
        let record = &self.records()[ticket.slot as usize];
        let abandoned = !record.is_wanted(ticket.generation);
        first(&Completed { ticket, status: outcome.status, abandoned, is_unsafe });
        let refused = Violation::NotInFlight { slot: ticket.slot, generation: ticket.generation };
        let abandoned = match record.settle(ticket.generation, &outcome) {
            Settled::Done => false,
            Settled::Abandoned => {
                self.free.give_back(ticket.slot);
                true
            }
            Settled::NotInFlight => return Err(refused),
        };
        reader.head += 1;
        Ok(Some(Completed { ticket, status: outcome.status, abandoned, is_unsafe }))
    }

    /// What is done by way of the reader relies on it: nobody else settles calls of this lane meanwhile.
    #[inline]
    pub(super) fn assert_reader(&self, reader: &Reader) {
        assert!(reader.lane == self.id, "a reader of another lane");
    }

    /// Fetches what comes next: the response that was just announced, and the completion behind it.
    #[inline]
    fn prefetch_after(&self, head: u64, slot: u32) {
        let up = self.memory.base(Region::Up);
        prefetch(up, self.geometry().response_offset(slot));
        let line = (head + 1) & u64::from(self.geometry().ring_entries() - 1);
        prefetch(up, RING + usize::try_from(line).unwrap_or(0) * LINE);
    }

    /// The one place where a worker's words become facts.
    fn check(&self, entry: &Entry) -> Result<(Ticket, Outcome, bool), Violation> {
        let geometry = self.geometry();
        let completion = Completion::decode(entry)?;
        let ticket = Ticket { slot: completion.slot, generation: completion.generation };
        if ticket.slot >= geometry.slots() {
            return Err(Violation::Slot(ticket.slot));
        }
        if !self.records()[ticket.slot as usize].in_flight(ticket.generation) {
            return Err(Violation::NotInFlight { slot: ticket.slot, generation: ticket.generation });
        }
        let capacity = self.response_capacity(completion.overflow);
        let (body, meta) = (completion.body_len, completion.meta_len);
        if message_len(body as usize, meta as usize).is_none_or(|n| n > capacity) {
            return Err(Violation::Length { body, meta });
        }
        let outcome = Outcome {
            status: completion.status,
            body_len: body,
            meta_len: meta,
            overflow: completion.overflow,
            never_started: matches!(completion.status, Status::Expired | Status::Cancelled | Status::Banned),
            cpu_ns: completion.cpu_ns.min(CPU_NS_MAX),
        };
        Ok((ticket, outcome, completion.is_unsafe))
    }

    fn response_capacity(&self, overflow: bool) -> usize {
        let geometry = self.geometry();
        if overflow { geometry.response_bytes as usize } else { geometry.small_response_capacity() }
    }

    /// The outcome of a call, once it was polled.
    #[inline]
    #[must_use]
    pub fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        self.record(ticket)?.outcome(ticket.generation)
    }

    /// Copies `to.len()` bytes of the response from `from` on (0 is the start of the body) into private memory.
    ///
    /// What arrives is whatever the worker has in its memory at this time, also after the completion: check it where it is.
    ///
    /// # Panics
    /// Where the range is outside the outcome's message, or the message is longer than the buffer, which no outcome of this lane is.
    pub fn copy_response(
        &self,
        ticket: Ticket,
        outcome: &Outcome,
        from: usize,
        to: &mut [core::mem::MaybeUninit<u8>],
    ) {
        let geometry = self.geometry();
        let len = message_len(outcome.body_len as usize, outcome.meta_len as usize);
        let capacity = self.response_capacity(outcome.overflow);
        assert!(
            len.is_some_and(|n| n <= capacity && from <= n && to.len() <= n - from)
                && ticket.slot < geometry.slots(),
            "{} bytes from {from} on are outside a response of {len:?} bytes",
            to.len()
        );
        let start = if outcome.overflow {
            geometry.overflow_offset(ticket.slot)
        } else {
            geometry.response_offset(ticket.slot)
        };
        // SAFETY: the message is within the buffer and `from` within the message, as just asserted; the buffer lies in the up region.
        let source = unsafe { self.memory.base(Region::Up).byte_add(start + from) };
        // SAFETY: readable for `to.len()` bytes as just shown; `to` is private and unique.
        unsafe { copy_out(source.as_ptr(), to.as_mut_ptr().cast(), to.len()) };
    }

    /// Gives up the interest in a call. True when its outcome was already there; the slot is then free at once, else when the completion comes.
    pub fn abandon(&self, ticket: Ticket) -> bool {
        match self.record(ticket) {
            Some(record) if record.abandon(ticket.generation) => false,
            Some(record) if record.outcome(ticket.generation).is_some() => {
                self.release(ticket);
                true
            }
            _ => false,
        }
    }

    /// Frees the slot of a call whose outcome was taken. Nothing happens for any other, so a second release is harmless.
    #[inline]
    pub fn release(&self, ticket: Ticket) {
        if self.record(ticket).is_some_and(|record| record.close(ticket.generation)) {
            self.free.give_back(ticket.slot);
        }
    }
}
