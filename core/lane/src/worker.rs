//! The worker's end of a lane, and the [entries](Submission) of both rings.
//!
//! The worker trusts most hosts, so a function may borrow its request in place; from others it is [copied](WorkerLane::copy_request). It still checks slot and
//! lengths once, since a host in another process may have been corrupted by its own program.
#![expect(unsafe_code, reason = "views of mapped memory")]

mod entries;

use core::ptr::NonNull;

use crate::copy::copy_out;
use crate::doorbell::Ringer;
use crate::layout::{Geometry, HOST_WORDS, LINE, RING, WORKER_WORDS};
use crate::message::{META_ALIGN, message_len};
use crate::prefetch::{prefetch, prefetch_write};
use crate::ring::{Line, Ring};
use crate::state::{CallState, Start};
use crate::words::{HostWords, WorkerWords};

use entries::unpack;
pub use entries::{Completion, FLAG_OVERFLOW, FLAG_UNSAFE, Submission};

/// A submission that the host cannot have meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFault {
    /// The submission as read.
    pub submission: Submission,
}

/// Where the worker finds a lane's regions.
#[derive(Debug, Clone, Copy)]
pub struct Bases {
    /// Down, read-only.
    pub down: NonNull<u8>,
    /// Bulk, read-only.
    pub bulk: NonNull<u8>,
    /// Up, read-write.
    pub up: NonNull<u8>,
}

/// Whom to wake after a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct HostSleeps {
    /// Threads on the futex: the bell has been rung, wake all that wait on its word.
    pub futex: bool,
    /// An event loop: write the eventfd.
    pub event: bool,
}

/// The worker's end.
#[derive(Debug)]
pub struct WorkerLane {
    bases: Bases,
    geometry: Geometry,
    head: u64,
    tail: u64,
    futex_ringer: Ringer,
    event_ringer: Ringer,
}

impl WorkerLane {
    /// The worker's end of a lane.
    ///
    /// # Safety
    /// - Each base points to a mapping of at least the bytes that `geometry` gives for its region, page-aligned, and stays mapped for
    ///   the life of the value; up is writable.
    /// - `geometry` passes [`Geometry::check`].
    /// - This is the only `WorkerLane` on this memory.
    #[must_use]
    pub unsafe fn new(bases: Bases, geometry: Geometry) -> Self {
        let position = u64::from(geometry.ring_entries());
        // SAFETY: the caller's promise.
        unsafe { Self::starting_at(bases, geometry, position) }
    }

    /// As [`new`](Self::new), with rings that start at `position`; see `HostLane::starting_at`.
    ///
    /// # Safety
    /// As for `new`.
    #[must_use]
    pub unsafe fn starting_at(bases: Bases, geometry: Geometry, position: u64) -> Self {
        let (futex_ringer, event_ringer) = (Ringer::default(), Ringer::default());
        Self { bases, geometry, head: position, tail: position, futex_ringer, event_ringer }
    }

    /// The sizes.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The host's control words.
    #[must_use]
    pub fn host_words(&self) -> &HostWords {
        // SAFETY: the line lies in the down region; it holds atomics only, and is only loaded from here.
        let word = unsafe { self.bases.down.byte_add(HOST_WORDS) };
        // SAFETY: aligned by the layout, in the mapping; atomics only, for which any content is valid.
        unsafe { word.cast().as_ref() }
    }

    /// The worker's control words.
    #[must_use]
    pub fn worker_words(&self) -> &WorkerWords {
        // SAFETY: the line lies in the up region; it holds atomics only.
        let word = unsafe { self.bases.up.byte_add(WORKER_WORDS) };
        // SAFETY: aligned by the layout, in the mapping; atomics only, for which any content is valid.
        unsafe { word.cast().as_ref() }
    }

    fn ring(&self, base: NonNull<u8>) -> Ring<'_> {
        // SAFETY: the ring lies in the region.
        let start = unsafe { base.byte_add(RING) };
        let lines =
            NonNull::slice_from_raw_parts(start.cast::<Line>(), self.geometry.ring_entries() as usize);
        // SAFETY: mapped and aligned; lines are atomics only.
        Ring::new(unsafe { lines.as_ref() })
    }

    /// Where in the ring the next submission is popped.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.head
    }

    /// Everything that has been submitted by now lies before this [position](Self::position): a ring holds no more than its size.
    #[must_use]
    pub fn all_submitted(&self) -> u64 {
        self.head.saturating_add(u64::from(self.geometry.ring_entries()))
    }

    /// Whether a submission waits. One relaxed load.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ring(self.bases.down).is_ready(self.head)
    }

    /// Takes the next submission.
    ///
    /// # Errors
    /// [`HostFault`] where it cannot be one.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Submission>, HostFault> {
        let entry = match self.ring(self.bases.down).read(self.head) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(None),
            Err(_) => return Err(HostFault { submission: Submission::decode(&[u64::MAX; 8]) }),
        };
        self.head += 1;
        let submission = Submission::decode(&entry);
        let len = message_len(submission.body_len as usize, submission.meta_len as usize);
        let good = submission.slot < self.geometry.slots()
            && len.is_some_and(|n| n <= self.geometry.request_capacity(submission.slot));
        if !good {
            return Err(HostFault { submission });
        }
        self.prefetch(submission.slot);
        Ok(Some(submission))
    }

    /// Fetches the lines of a call: its request to read, its response to write. `slot` is of this lane.
    #[inline]
    fn prefetch(&self, slot: u32) {
        let region = if self.geometry.is_large(slot) { self.bases.bulk } else { self.bases.down };
        prefetch(region, self.geometry.request_offset(slot));
        prefetch_write(self.bases.up, self.geometry.response_offset(slot));
    }

    /// Fetches the lines of the submission after the last popped one, if it is there, and returns its function number for the same purpose.
    #[inline]
    #[must_use]
    pub fn prefetch_next(&self) -> Option<u32> {
        let (slot, word) = self.ring(self.bases.down).peek(self.head)?;
        if slot >= self.geometry.slots() {
            return None;
        }
        self.prefetch(slot);
        // Its completion's line too: without this the next claim, which must wait for all stores before it, waits for that line to come.
        let ahead = self.tail.wrapping_add(1) & u64::from(self.geometry.ring_entries() - 1);
        prefetch_write(self.bases.up, RING + usize::try_from(ahead).unwrap_or(0) * LINE);
        Some(unpack(word).1)
    }

    /// Function number of the next submission, if it is there.
    #[inline]
    #[must_use]
    pub fn next_function(&self) -> Option<u32> {
        self.ring(self.bases.down).peek(self.head).map(|(_, word)| unpack(word).1)
    }

    /// How far, from a position on, the submissions that are there are all of one function; and whether one of another function follows, rather than none.
    ///
    /// # Cost
    /// A look at a line for each, which popping them needs too. At most as many as the ring has.
    #[must_use]
    pub fn run_of(&self, function: u32, from: u64) -> (u64, bool) {
        let ring = self.ring(self.bases.down);
        for position in from.max(self.head)..self.all_submitted() {
            match ring.peek(position) {
                None => return (position, false),
                Some((_, word)) if unpack(word).1 != function => return (position, true),
                Some(_) => {}
            }
        }
        (self.all_submitted(), false)
    }

    /// Entries are plain data that anyone can make, so what leads to an address is checked where it does.
    #[inline]
    fn assert_slot(&self, slot: u32) {
        assert!(slot < self.geometry.slots(), "slot {slot} is not of this lane");
    }

    fn state(&self, slot: u32) -> &CallState {
        self.assert_slot(slot);
        // SAFETY: the slot exists, so the word lies in the up region, 8-aligned.
        let word = unsafe { self.bases.up.byte_add(self.geometry.state_offset(slot)) };
        // SAFETY: aligned by the layout, in the mapping; atomics only, for which any content is valid.
        unsafe { word.cast().as_ref() }
    }

    /// Claims a popped call.
    ///
    /// # Panics
    /// Where the lane has no such slot; `pop` returns none such.
    #[inline]
    pub fn start(&self, submission: &Submission) -> Start {
        self.state(submission.slot).start(submission.generation)
    }

    /// Body and metadata of a popped call, in place.
    ///
    /// # Safety
    /// `submission` came from [`pop`](Self::pop) of this lane and has not been completed. The slices must not be used after it has.
    #[inline]
    #[must_use]
    pub unsafe fn request<'a>(&self, submission: &Submission) -> (&'a [u8], &'a [u8]) {
        let slot = submission.slot;
        let region = if self.geometry.is_large(slot) { self.bases.bulk } else { self.bases.down };
        let (body_len, meta_len) = (submission.body_len as usize, submission.meta_len as usize);
        // SAFETY: in the region by the layout.
        let start = unsafe { region.byte_add(self.geometry.request_offset(slot)) };
        // SAFETY: `pop` has checked the lengths against the slot; the host does not write the slot while the call is in flight.
        let body = unsafe { NonNull::slice_from_raw_parts(start, body_len).as_ref() };
        if meta_len == 0 {
            return (body, &[]);
        }
        // SAFETY: as above; `message_len` has counted the padding.
        let meta = unsafe { start.byte_add(body_len.next_multiple_of(META_ALIGN)) };
        // SAFETY: as above.
        (body, unsafe { NonNull::slice_from_raw_parts(meta, meta_len).as_ref() })
    }

    /// Bytes of a popped call's request: body, padding and metadata.
    #[inline]
    #[must_use]
    pub fn request_len(&self, submission: &Submission) -> usize {
        // `pop` has checked the lengths.
        message_len(submission.body_len as usize, submission.meta_len as usize).unwrap_or(0)
    }

    /// Copies the request of a popped call, as it lies in the slot, whatever the host does to it meanwhile: for hosts that are not trusted.
    ///
    /// # Safety
    /// `submission` came from [`pop`](Self::pop) of this lane; `to` is private memory of at least [`request_len`](Self::request_len) bytes.
    pub unsafe fn copy_request(&self, submission: &Submission, to: NonNull<u8>) {
        let slot = submission.slot;
        let region = if self.geometry.is_large(slot) { self.bases.bulk } else { self.bases.down };
        // SAFETY: in the region by the layout.
        let start = unsafe { region.byte_add(self.geometry.request_offset(slot)) };
        // SAFETY: `pop` has checked the length against the slot; `to` by the caller's promise.
        unsafe { copy_out(start.as_ptr(), to.as_ptr(), self.request_len(submission)) };
    }

    /// The slot's small response buffer: start and bytes.
    ///
    /// # Panics
    /// Where the lane has no such slot.
    #[inline]
    #[must_use]
    pub fn small_response(&self, slot: u32) -> (NonNull<u8>, usize) {
        self.assert_slot(slot);
        // SAFETY: the slot exists, so its buffer lies in the up region.
        let start = unsafe { self.bases.up.byte_add(self.geometry.response_offset(slot)) };
        (start, self.geometry.small_response_capacity())
    }

    /// The slot's overflow buffer: start and bytes. Its pages come when touched.
    ///
    /// # Panics
    /// Where the lane has no such slot.
    #[inline]
    #[must_use]
    pub fn overflow_response(&self, slot: u32) -> (NonNull<u8>, usize) {
        self.assert_slot(slot);
        // SAFETY: the slot exists, so its buffer lies in the up region.
        let start = unsafe { self.bases.up.byte_add(self.geometry.overflow_offset(slot)) };
        (start, self.geometry.response_bytes as usize)
    }

    /// Publishes a completion. Then [`host_sleeps`](Self::host_sleeps) says whom to wake.
    ///
    /// # Panics
    /// Where the lane has no such slot.
    #[inline]
    pub fn complete(&mut self, completion: &Completion) {
        self.state(completion.slot).finish(completion.generation);
        self.ring(self.bases.up).write(self.tail, &completion.encode());
        self.tail += 1;
    }

    /// Whom to wake for what was completed; rings the bell where threads sleep on it. True at most once for each nap.
    #[inline]
    pub fn host_sleeps(&self) -> HostSleeps {
        Ringer::published();
        let words = self.host_words();
        let futex = self.futex_ringer.due(&words.futex_epoch);
        if futex {
            self.worker_words().host_bell.ring();
        }
        HostSleeps { futex, event: self.event_ringer.due(&words.event_epoch) }
    }
}
