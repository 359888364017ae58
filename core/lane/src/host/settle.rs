//! Calls that do not end on their own lane: taken back, copied to be sent elsewhere, settled when the lane is cut.
#![expect(unsafe_code, reason = "copies out of a slot's request buffer")]

use super::{Completed, HostLane, Memory, Reader, Ticket};
use crate::copy::copy_out;
use crate::layout::Region;
use crate::message::message_len;
use crate::slots::{Outcome, Settled};
use crate::state::Phase;
use crate::status::Status;

impl<M: Memory> HostLane<M> {
    /// Takes the call back if the worker has not started it. Its completion still comes: the owner waits for it, or
    /// [abandons](Self::abandon) the call so that the completion frees the slot. A hostile worker may run the call all the same and
    /// report anything, so whoever sends the call elsewhere after this has to disregard the outcome.
    #[must_use]
    pub fn take_back(&self, ticket: Ticket) -> bool {
        ticket.slot < self.geometry().slots() && self.state(ticket.slot).take_back(ticket.generation)
    }

    /// What the shared call state says; advice from the worker.
    #[must_use]
    pub fn phase(&self, ticket: Ticket) -> Option<Phase> {
        (ticket.slot < self.geometry().slots()).then(|| self.state(ticket.slot).phase(ticket.generation))?
    }

    /// Body and metadata bytes of the request of a call in flight whose owner waits for it; `None` for any other.
    ///
    /// # Panics
    /// Where the reader is of another lane.
    #[must_use]
    pub fn asked(&self, reader: &mut Reader, ticket: Ticket) -> Option<(u32, u32)> {
        self.assert_reader(reader);
        let record = self.record(ticket)?;
        record.is_wanted(ticket.generation).then(|| record.asked())
    }

    /// Copies the request of a call in flight, body and metadata as they lie in the slot, into the start of `to`, to send the call elsewhere. Returns its
    /// length; `None` where the call is not in flight or `to` is too short.
    ///
    /// # Panics
    /// Where the reader is of another lane.
    pub fn copy_request(&self, reader: &mut Reader, ticket: Ticket, to: &mut [u8]) -> Option<usize> {
        self.assert_reader(reader);
        let record = self.record(ticket)?;
        if !record.in_flight(ticket.generation) {
            return None;
        }
        let geometry = self.geometry();
        let (body_len, meta_len) = record.asked();
        let len = message_len(body_len as usize, meta_len as usize)?;
        if len > geometry.request_capacity(ticket.slot) || len > to.len() {
            return None;
        }
        let region = if geometry.is_large(ticket.slot) { Region::Bulk } else { Region::Down };
        // SAFETY: the offset and capacity lie in the region by construction of the layout.
        let start = unsafe { self.memory.base(region).byte_add(geometry.request_offset(ticket.slot)) };
        // SAFETY: readable for `len` bytes as just shown. A call in flight leaves that state by way of the reader alone, which is borrowed here: so nobody owns the
        // buffer, and no other process writes it.
        unsafe { copy_out(start.as_ptr(), to.as_mut_ptr(), len) };
        Some(len)
    }

    /// The calls in flight, wanted or not; those submitted or completed meanwhile may or may not be among them.
    pub fn in_flight(&self) -> impl Iterator<Item = Ticket> + '_ {
        (0u32..).zip(self.records()).filter_map(|(slot, record)| {
            let generation = record.generation();
            record.in_flight(generation).then_some(Ticket { slot, generation })
        })
    }

    /// Settles one call in flight, as [`settle_all`](Self::settle_all) does all: for a lane that was cut. `None` where there is no such call.
    ///
    /// # Panics
    /// Where the reader is of another lane.
    pub fn settle(&self, reader: &mut Reader, ticket: Ticket, outcome: &Outcome) -> Option<Completed> {
        self.assert_reader(reader);
        let record = self.record(ticket).filter(|record| record.in_flight(ticket.generation))?;
        let abandoned = match record.settle(ticket.generation, outcome) {
            Settled::Done => false,
            Settled::Abandoned => {
                self.free.give_back(ticket.slot);
                true
            }
            Settled::NotInFlight => return None,
        };
        Some(Completed { ticket, status: outcome.status, abandoned, is_unsafe: false })
    }

    /// Settles every call in flight as lost; `settled` is told of each. For a lane whose worker is gone or cut off.
    /// What was completed and not yet polled should be polled first. Each call that was not started is taken back on the way, so that
    /// a worker which still lives does not start it later.
    ///
    /// A call that another thread submits at the same time may be missed. So a lane is first marked as cut where submitters look
    /// *after* [`worker_wish`](Self::worker_wish) (whose fence orders the look), the mark is followed by a `fence(SeqCst)`, and a
    /// submitter that finds it calls this again.
    ///
    /// # Panics
    /// Where the reader is of another lane.
    pub fn settle_all(&self, reader: &mut Reader, mut settled: impl FnMut(Completed)) {
        for ticket in self.in_flight() {
            let never_started = self.take_back(ticket) || self.phase(ticket) == Some(Phase::Cancelled);
            let outcome = Outcome::bare(Status::WorkerLost, never_started);
            if let Some(completed) = self.settle(reader, ticket, &outcome) {
                settled(completed);
            }
        }
    }
}
