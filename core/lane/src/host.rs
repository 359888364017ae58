//! The host's end of a lane.
//!
//! A call goes `reserve` → write the request into [`HostLane::buffer`] → `submit` → (`poll` by whoever reads the completion
//! ring) → `outcome` → `copy_response` → `release`. Any thread may do the first three and the last three for the
//! slot that it owns; one thread at a time may `poll`, which the unique [`Reader`] expresses.
#![expect(unsafe_code, reason = "views of mapped memory; the crate's border to the hostile side")]

use core::ptr::NonNull;

use crate::copy::copy_out;
use crate::doorbell::{Ringer, Wish};
use crate::layout::{Geometry, HOST_WORDS, LINE, RING, Region, WORKER_WORDS};
use crate::message::message_len;
use crate::prefetch::prefetch;
use crate::ring::{Entry, Line, Ring};
use crate::slots::{FreeSlots, Outcome, Record, Settled};
use crate::state::{CallState, Phase};
use crate::status::{Status, Violation};
use crate::sync::{AtomicU64, Ordering};
use crate::words::{HostWords, WorkerWords};
use crate::worker::{Completion, Submission};

/// The memory of a lane as the host holds it.
///
/// # Safety
/// For as long as the value lives:
/// - `base(r)` points to a mapping of at least the bytes that `geometry()` gives for region `r`, aligned to a page, readable and
///   writable, zero at the start but for the header, and not unmapped or shrunk.
/// - no Rust reference to any of it exists outside this crate; down and bulk are written by no other process.
/// - the mapping and the records belong to this value alone: no other `Memory` gives out the same.
/// - `geometry()` never changes and passes [`Geometry::check`]; `records()` has one record for each slot, new ones at the start,
///   and never moves.
pub unsafe trait Memory {
    /// The sizes, from private memory.
    fn geometry(&self) -> &Geometry;
    /// Start of a region.
    fn base(&self, region: Region) -> NonNull<u8>;
    /// The host's records.
    ///
    /// # Safety
    /// Only [`HostLane`] calls this: who is the owner of a buffer follows from them.
    unsafe fn records(&self) -> &[Record];
}

/// Most CPU time that a completion is believed, in nanoseconds (three days): a sum of 65,536 of them does not overflow.
pub const CPU_NS_MAX: u64 = 1 << 48;

/// Numbers the lanes of this process, so that a reservation is used on its own lane only.
static LANES: AtomicU64 = AtomicU64::new(0);

/// The host's end.
#[derive(Debug)]
pub struct HostLane<M> {
    memory: M,
    id: u64,
    free: FreeSlots,
    tail: AtomicU64,
    ringer: Ringer,
}

/// The position in the completion ring. There is one for each lane, made with it; whoever holds it may poll.
#[derive(Debug)]
pub struct Reader {
    head: u64,
    lane: u64,
}

impl Reader {
    /// Where it is: for [`HostLane::is_ready_at`].
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }
}

/// A slot that the caller owns and has not submitted. Dropping it without giving it back leaks the slot, so the lane takes it back
/// by [`HostLane::submit`] or [`HostLane::cancel_reservation`].
#[derive(Debug)]
#[must_use]
pub struct Reserved {
    slot: u32,
    lane: u64,
}

impl Reserved {
    /// Number of the slot.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }
}

/// A submitted call: slot and generation. Plain numbers, so that it can cross a C ABI as a user datum; a stale one is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
}

/// Why no slot was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReserveError {
    /// The request has this many bytes, more than any slot of the lane holds.
    TooLarge {
        /// Most that a slot holds.
        max: usize,
    },
    /// All slots of the class are in use.
    Exhausted,
}

/// What to submit. Lengths in bytes; the body lies at the start of the buffer, metadata at the next multiple of 8.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Dense number of the function.
    pub function: u32,
    /// Body bytes.
    pub body_len: u32,
    /// Metadata bytes.
    pub meta_len: u32,
    /// `CLOCK_MONOTONIC` nanoseconds; `u64::MAX` for never.
    pub deadline_ns: u64,
    /// Bit set of `microfaas_abi::CALL_*`.
    pub flags: u32,
    /// The machine's cycle counter now; 0 where it is not known.
    pub submitted_cycles: u64,
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
    /// The host's end of a new lane, and the one reader of its completions. To be called before the worker is given the
    /// memory, since it prepares the rings.
    ///
    /// Positions start with the second lap, so that no tag is 0 and a page that the worker zeroes is a violation, not an empty ring.
    pub fn new(memory: M) -> (Self, Reader) {
        let position = u64::from(memory.geometry().ring_entries());
        Self::starting_at(memory, position)
    }

    /// As [`new`](Self::new), on rings whose positions start at `position`: what a lane looks like after
    /// that many calls. For tests of wrapping; the worker's end must start at the same.
    pub fn starting_at(memory: M, position: u64) -> (Self, Reader) {
        let lane = Self {
            memory,
            id: LANES.fetch_add(1, Ordering::Relaxed),
            free: FreeSlots::default(),
            tail: AtomicU64::new(position),
            ringer: Ringer::default(),
        };
        for slot in 0..lane.geometry().slots() {
            lane.free.give_back(slot);
            lane.state(slot).prepare(lane.records()[slot as usize].generation());
        }
        lane.ring(Region::Down).prepare(position);
        lane.ring(Region::Up).prepare(position);
        let reader = Reader { head: position, lane: lane.id };
        (lane, reader)
    }

    /// The sizes.
    pub fn geometry(&self) -> &Geometry {
        self.memory.geometry()
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The host's control words.
    pub fn host_words(&self) -> &HostWords {
        // SAFETY: by `Memory`, the line lies in the mapping; it holds atomics only, for which zero is valid.
        let word = unsafe { self.memory.base(Region::Down).byte_add(HOST_WORDS) };
        // SAFETY: aligned by the layout, in the mapping; atomics only, for which any content is valid.
        unsafe { word.cast().as_ref() }
    }

    /// The worker's control words; whatever they say may be a lie.
    pub fn worker_words(&self) -> &WorkerWords {
        // SAFETY: as in `host_words`.
        let word = unsafe { self.memory.base(Region::Up).byte_add(WORKER_WORDS) };
        // SAFETY: aligned by the layout, in the mapping; atomics only, for which any content is valid.
        unsafe { word.cast().as_ref() }
    }

    fn ring(&self, region: Region) -> Ring<'_> {
        // SAFETY: by `Memory`, the ring lies in the mapping of either region.
        let start = unsafe { self.memory.base(region).byte_add(RING) };
        let lines =
            NonNull::slice_from_raw_parts(start.cast::<Line>(), self.geometry().ring_entries() as usize);
        // SAFETY: in the mapping, page-aligned; lines are atomics only, so any content is valid and shared writes are no race.
        Ring::new(unsafe { lines.as_ref() })
    }

    fn state(&self, slot: u32) -> &CallState {
        let offset = self.geometry().state_offset(slot);
        // SAFETY: `slot` is below `slots()` at every caller, so the word lies in the up region, 8-aligned.
        let word = unsafe { self.memory.base(Region::Up).byte_add(offset) };
        // SAFETY: aligned by the layout, in the mapping; atomics only, for which any content is valid.
        unsafe { word.cast().as_ref() }
    }

    /// Takes a slot that holds a request of `len` bytes (see [`message_len`]).
    ///
    /// # Errors
    /// [`ReserveError`]; nothing is taken then.
    ///
    /// # Cost
    /// One compare-and-swap in private memory.
    #[inline]
    pub fn reserve(&self, len: usize) -> Result<Reserved, ReserveError> {
        let geometry = self.geometry();
        let (small, all) = (geometry.small_slots, geometry.slots());
        if len <= geometry.small_bytes as usize {
            let slot = self.free.take(0, small).ok_or(ReserveError::Exhausted)?;
            return Ok(Reserved { slot, lane: self.id });
        }
        if geometry.large_slots == 0 || len > geometry.large_bytes as usize {
            let max = if geometry.large_slots == 0 { geometry.small_bytes } else { geometry.large_bytes };
            return Err(ReserveError::TooLarge { max: max as usize });
        }
        let slot = self.free.take(small, all).ok_or(ReserveError::Exhausted)?;
        Ok(Reserved { slot, lane: self.id })
    }

    /// Every method that takes a reservation relies on this: slots of another lane may be out of range here, or not the caller's.
    #[inline]
    fn assert_own(&self, reserved: &Reserved) {
        assert!(reserved.lane == self.id, "a reservation of another lane");
    }

    /// The request buffer of a reserved slot. Only the host can write this memory, so it is an ordinary slice. It holds what the
    /// slot's last request left there.
    ///
    /// # Panics
    /// Where the reservation is of another lane.
    #[inline]
    pub fn buffer<'a>(&'a self, reserved: &'a mut Reserved) -> &'a mut [u8] {
        self.assert_own(reserved);
        let geometry = self.geometry();
        let region = if geometry.is_large(reserved.slot) { Region::Bulk } else { Region::Down };
        let capacity = geometry.request_capacity(reserved.slot);
        // SAFETY: the offset and capacity lie in the region by construction of the layout.
        let start = unsafe { self.memory.base(region).byte_add(geometry.request_offset(reserved.slot)) };
        let mut buffer = NonNull::slice_from_raw_parts(start, capacity);
        // SAFETY: the caller owns the slot: `Reserved` is unique for its lane and slot while `FreeSlots` and `Record` are
        // used by this type alone, and is borrowed for as long. The worker maps this memory read-only; an honest one does not
        // look at it before the submission, and what a hostile one sees too early concerns only itself.
        unsafe { buffer.as_mut() }
    }

    /// Gives an unused reservation back.
    ///
    /// # Panics
    /// Where the reservation is of another lane.
    #[expect(clippy::needless_pass_by_value, reason = "the reservation ends here")]
    pub fn cancel_reservation(&self, reserved: Reserved) {
        self.assert_own(&reserved);
        self.free.give_back(reserved.slot);
    }

    /// Hands the call to the worker. Then [`worker_wish`](Self::worker_wish) says whether to wake it.
    ///
    /// # Panics
    /// Where the lengths are over the slot's capacity, or the reservation is of another lane. The slot is lost then.
    ///
    /// # Cost
    /// One line written for the worker to read.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "the reservation ends here")]
    pub fn submit(&self, reserved: Reserved, request: &Request) -> Ticket {
        self.assert_own(&reserved);
        let slot = reserved.slot;
        let len = message_len(request.body_len as usize, request.meta_len as usize);
        let capacity = self.geometry().request_capacity(slot);
        assert!(len.is_some_and(|n| n <= capacity), "request over the slot's {capacity} bytes");
        let record = &self.records()[slot as usize];
        record.asks(request.body_len, request.meta_len);
        let generation = record.submit();
        let position = self.tail.fetch_add(1, Ordering::Relaxed);
        let submission = Submission {
            slot,
            generation,
            function: request.function,
            flags: request.flags,
            body_len: request.body_len,
            meta_len: request.meta_len,
            deadline_ns: request.deadline_ns,
            submitted_cycles: request.submitted_cycles,
        };
        self.ring(Region::Down).write(position, &submission.encode());
        Ticket { slot, generation }
    }

    /// What the worker has asked for, now that something was submitted; once for each time that it has asked. [`Wish::Ring`]: it sleeps; the caller rings
    /// [`HostWords::worker_bell`] and wakes its word, with the widest mask. [`Wish::Interrupt`]: it has given a call a long slice, of which a signal takes the rest.
    #[inline]
    #[must_use]
    pub fn worker_wish(&self) -> Option<Wish> {
        Ringer::published();
        self.ringer.wish(&self.worker_words().worker_epoch)
    }

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
    #[inline]
    pub fn poll(&self, reader: &mut Reader) -> Result<Option<Completed>, Violation> {
        self.poll_with(reader, |_| ())
    }

    /// As [`poll`](Self::poll); `first` is told of a completion that was checked, before its owner can find the outcome. It does not know yet whether there is one.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    #[inline]
    pub fn poll_with(
        &self,
        reader: &mut Reader,
        first: impl FnOnce(&Completed),
    ) -> Result<Option<Completed>, Violation> {
        let Some(entry) = self.ring(Region::Up).read(reader.head)? else { return Ok(None) };
        let (ticket, outcome, is_unsafe) = self.check(&entry)?;
        self.prefetch_after(reader.head, ticket.slot);
        first(&Completed { ticket, status: outcome.status, abandoned: false, is_unsafe });
        let refused = Violation::NotInFlight { slot: ticket.slot, generation: ticket.generation };
        let abandoned = match self.records()[ticket.slot as usize].settle(ticket.generation, &outcome) {
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

    fn records(&self) -> &[Record] {
        // SAFETY: this is `HostLane`.
        unsafe { self.memory.records() }
    }

    fn record(&self, ticket: Ticket) -> Option<&Record> {
        self.records().get(ticket.slot as usize)
    }

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

    /// Body and metadata bytes of the request of a call in flight whose owner waits for it; `None` for any other.
    #[must_use]
    pub fn asked(&self, _reader: &mut Reader, ticket: Ticket) -> Option<(u32, u32)> {
        let record = self.record(ticket)?;
        record.is_wanted(ticket.generation).then(|| record.asked())
    }

    /// Copies the request of a call in flight, body and metadata as they lie in the slot, into the start of `to`, to send the call elsewhere. Returns its
    /// length; `None` where the call is not in flight or `to` is too short.
    ///
    /// # Panics
    /// Where the reader is of another lane.
    pub fn copy_request(&self, reader: &mut Reader, ticket: Ticket, to: &mut [u8]) -> Option<usize> {
        assert!(reader.lane == self.id, "a reader of another lane");
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

    /// Settles one call in flight, as [`settle_all`](Self::settle_all) does all: for a lane that was cut. `None` where there is no such call.
    pub fn settle(&self, _reader: &mut Reader, ticket: Ticket, outcome: &Outcome) -> Option<Completed> {
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

    /// The calls in flight, wanted or not; those submitted or completed meanwhile may or may not be among them.
    pub fn in_flight(&self) -> impl Iterator<Item = Ticket> + '_ {
        (0u32..).zip(self.records()).filter_map(|(slot, record)| {
            let generation = record.generation();
            record.in_flight(generation).then_some(Ticket { slot, generation })
        })
    }

    /// Settles every call in flight as lost; `settled` is told of each. For a lane whose worker is gone or cut off.
    /// What was completed and not yet polled should be polled first. Each call that was not started is taken back on the way, so that
    /// a worker which still lives does not start it later.
    ///
    /// A call that another thread submits at the same time may be missed. So a lane is first marked as cut where submitters look
    /// *after* [`worker_wish`](Self::worker_wish) (whose fence orders the look), the mark is followed by a `fence(SeqCst)`, and a
    /// submitter that finds it calls this again.
    pub fn settle_all(&self, reader: &mut Reader, mut settled: impl FnMut(Completed)) {
        for ticket in self.in_flight() {
            let never_started = self.take_back(ticket) || self.phase(ticket) == Some(Phase::Cancelled);
            let outcome = Outcome::bare(Status::WorkerLost, never_started);
            if let Some(completed) = self.settle(reader, ticket, &outcome) {
                settled(completed);
            }
        }
    }

    /// Slots that are free now, of all; a hint.
    #[must_use]
    pub fn free_slots(&self) -> u32 {
        self.free.count(self.geometry().slots())
    }
}
