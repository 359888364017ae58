//! The host's end of a lane.
//!
//! A call goes `reserve` → write the request into [`HostLane::buffer`] → `submit` → (`poll` by whoever reads the completion
//! ring) → `outcome` → `copy_response` → `release`. Any thread may do the first three and the last three for the
//! slot that it owns; one thread at a time may `poll`, which the unique [`Reader`] expresses.
#![expect(unsafe_code, reason = "views of mapped memory; the crate's border to the hostile side")]

mod complete;
mod settle;
mod submit;

use core::ptr::NonNull;

use crate::doorbell::Ringer;
use crate::layout::{Geometry, HOST_WORDS, RING, Region, WORKER_WORDS};
use crate::ring::{Line, Ring};
use crate::slots::{FreeSlots, Record};
use crate::state::CallState;
use crate::sync::{AtomicU64, Ordering};
use crate::words::{HostWords, WorkerWords};

pub use complete::{CPU_NS_MAX, Completed, Reader};
pub use submit::{Request, ReserveError, Reserved, Ticket};

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

    fn records(&self) -> &[Record] {
        // SAFETY: this is `HostLane`.
        unsafe { self.memory.records() }
    }

    fn record(&self, ticket: Ticket) -> Option<&Record> {
        self.records().get(ticket.slot as usize)
    }

    /// Slots that are free now, of all; a hint.
    #[must_use]
    pub fn free_slots(&self) -> u32 {
        self.free.count(self.geometry().slots())
    }
}
