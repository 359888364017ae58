//! A call's way in: a slot is reserved, the request written into it, and the call submitted.
#![expect(unsafe_code, reason = "the request buffer of a slot, as a slice")]

use core::ptr::NonNull;

use super::{HostLane, Memory};
use crate::doorbell::{Ringer, Wish};
use crate::layout::Region;
use crate::message::message_len;
use crate::sync::Ordering;
use crate::worker::Submission;

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

impl<M: Memory> HostLane<M> {
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
        // Acquire and release: among as many earlier positions as the ring has lines, one was completed before its slot could be taken again, so all up to the one whose
        // line is written now were read; who has taken the positions in between has seen that.
        let position = self.tail.fetch_add(1, Ordering::AcqRel);
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
    /// [`HostWords::worker_bell`](crate::words::HostWords::worker_bell) and wakes its word, with the widest mask. [`Wish::Interrupt`]: it has given a call a long slice, of which a signal takes the rest.
    #[inline]
    #[must_use]
    pub fn worker_wish(&self) -> Option<Wish> {
        Ringer::published();
        self.ringer.wish(&self.worker_words().worker_epoch)
    }
}
