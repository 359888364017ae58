//! A lane on heap memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use microfaas_lane::host::Memory;
use microfaas_lane::layout::{Geometry, PAGE, Region};
use microfaas_lane::slots::Record;
use microfaas_lane::worker::Bases;

/// Small enough that every input reaches every slot, with both classes and a ring that is longer than its slots.
pub const GEOMETRY: Geometry =
    Geometry { small_slots: 3, large_slots: 2, small_bytes: 256, large_bytes: 4096, response_bytes: 4096 };

/// Zeroed, page-aligned, of exactly this many bytes: the address sanitizer sees every access outside.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, PAGE).expect("a fuzzed lane is a few pages");
        // SAFETY: a lane has no empty region.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, layout }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout, and freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// The three regions.
#[derive(Debug)]
pub struct HeapMemory {
    regions: [Pages; 3],
    records: Vec<Record>,
}

impl HeapMemory {
    /// New, for [`GEOMETRY`].
    #[must_use]
    pub fn new() -> Self {
        let regions = [GEOMETRY.down_bytes(), GEOMETRY.bulk_bytes(), GEOMETRY.up_bytes()].map(Pages::new);
        Self { regions, records: (0..GEOMETRY.slots()).map(|_| Record::default()).collect() }
    }

    /// What the worker maps.
    #[must_use]
    pub fn bases(&self) -> Bases {
        let [down, bulk, up] = &self.regions;
        Bases { down: down.start, bulk: bulk.start, up: up.start }
    }

    /// The worker writes a byte of the region that it may write, whatever else lies there.
    pub fn scribble(&self, offset: usize, byte: u8) {
        self.scribble_in(Region::Up, offset, byte);
    }

    /// As `scribble`, by a host, in any region. Not while a request is borrowed.
    pub fn scribble_in(&self, region: Region, offset: usize, byte: u8) {
        let pages = &self.regions[region as usize];
        // SAFETY: inside the region.
        let at = unsafe { pages.start.byte_add(offset % pages.layout.size()) };
        // SAFETY: no reference to plain memory of this region exists, and one thread runs at a time.
        unsafe { at.write_volatile(byte) };
    }

    /// As `scribble`, a whole aligned word.
    pub fn scribble_word(&self, offset: usize, word: u64) {
        for (i, byte) in (0..).zip(word.to_le_bytes()) {
            self.scribble((offset & !7) + i, byte);
        }
    }
}

impl Default for HeapMemory {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: three zeroed, page-aligned allocations of the geometry's sizes that live as long as the value; no slice of them is made outside the lane;
// the constant geometry passes its check; the records never move.
unsafe impl Memory for HeapMemory {
    fn geometry(&self) -> &Geometry {
        &GEOMETRY
    }

    fn base(&self, region: Region) -> NonNull<u8> {
        self.regions[region as usize].start
    }

    unsafe fn records(&self) -> &[Record] {
        &self.records
    }
}
