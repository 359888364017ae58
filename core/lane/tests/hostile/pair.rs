//! A host and a worker's memory in one process.
#![expect(unsafe_code, reason = "lays a lane over heap memory and writes into it as a hostile worker does")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use microfaas_lane::Violation;
use microfaas_lane::host::{Completed, HostLane, Memory, Reader, Request, Ticket};
use microfaas_lane::layout::{Geometry, LINE, PAGE, RING, Region};
use microfaas_lane::slots::{Outcome, Record};
use microfaas_lane::worker::{Bases, WorkerLane};

pub(crate) const GEOMETRY: Geometry =
    Geometry { small_slots: 4, large_slots: 0, small_bytes: 256, large_bytes: 4096, response_bytes: 4096 };

#[derive(Debug)]
pub(crate) struct Heap {
    regions: [(NonNull<u8>, Layout); 3],
    records: Vec<Record>,
}

impl Heap {
    fn new() -> Self {
        let bytes = [GEOMETRY.down_bytes(), GEOMETRY.bulk_bytes(), GEOMETRY.up_bytes()];
        let regions = bytes.map(|bytes| {
            let layout = Layout::from_size_align(bytes, PAGE).expect("a few pages");
            // SAFETY: no region is empty.
            (NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory for a test"), layout)
        });
        Self { regions, records: (0..GEOMETRY.slots()).map(|_| Record::default()).collect() }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        for (start, layout) in self.regions {
            // SAFETY: allocated with this layout, freed once.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }
}

// SAFETY: zeroed, page-aligned allocations of the geometry's sizes that live as long as the value; no slice of them is made outside the lane.
unsafe impl Memory for Heap {
    fn geometry(&self) -> &Geometry {
        &GEOMETRY
    }
    fn base(&self, region: Region) -> NonNull<u8> {
        self.regions[region as usize].0
    }
    unsafe fn records(&self) -> &[Record] {
        &self.records
    }
}

/// The host, the worker's end and the worker's pen.
pub(crate) struct Pair {
    pub(crate) worker: WorkerLane,
    pub(crate) host: HostLane<Heap>,
    pub(crate) reader: Reader,
    pub(crate) position: u64,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::starting_at(u64::from(GEOMETRY.ring_entries()))
    }

    pub(crate) fn starting_at(position: u64) -> Self {
        let (host, reader) = HostLane::starting_at(Heap::new(), position);
        let [down, bulk, up] = [Region::Down, Region::Bulk, Region::Up].map(|r| host.memory().base(r));
        // SAFETY: the memory lives in `host`, beside the worker's end, which is the only one.
        let worker = unsafe { WorkerLane::starting_at(Bases { down, bulk, up }, GEOMETRY, position) };
        Self { worker, host, reader, position }
    }

    /// The worker has completed a call, which its owner may have given up; nobody has looked yet.
    pub(crate) fn with_a_call_that_is_done(self, given_up: bool) -> Self {
        let ticket = self.submit();
        assert!(!given_up || !self.host.abandon(ticket), "the worker has it");
        self.complete(0, ticket, |_| ());
        self
    }

    pub(crate) fn submit(&self) -> Ticket {
        let request = Request {
            function: 1,
            body_len: 0,
            meta_len: 0,
            deadline_ns: u64::MAX,
            flags: 0,
            submitted_cycles: 0,
        };
        self.host.submit(self.host.reserve(0).expect("a slot is free"), &request)
    }

    /// A word of the region that the worker may write.
    pub(crate) fn store(&self, offset: usize, word: u64) {
        // SAFETY: every caller stays inside the region.
        let at = unsafe { self.host.memory().base(Region::Up).byte_add(offset) };
        // SAFETY: aligned, inside, and plain data to this thread.
        unsafe { at.cast::<u64>().write_volatile(word) };
    }

    pub(crate) fn store_all(&self, word: u64) {
        (0..GEOMETRY.up_bytes()).step_by(8).for_each(|offset| self.store(offset, word));
    }

    pub(crate) fn tag(&self, position: u64) -> u64 {
        position / u64::from(GEOMETRY.ring_entries()) + 1
    }

    /// Writes a completion line at the ring's start plus `ahead`, under any tag.
    pub(crate) fn line(&self, ahead: u64, tag: u64, words: [u64; 5]) {
        let index = usize::try_from((self.position + ahead) % u64::from(GEOMETRY.ring_entries()))
            .expect("below the ring's length");
        for (i, word) in words.into_iter().enumerate().rev() {
            let word = if i == 0 { (tag & 0xffff_ffff) << 32 | word } else { word };
            self.store(RING + index * LINE + i * 8, word);
        }
    }

    /// A completion of a call as the next entry, with some words changed.
    pub(crate) fn complete(&self, ahead: u64, ticket: Ticket, change: impl FnOnce(&mut [u64; 5])) {
        let mut words = [u64::from(ticket.slot), u64::from(ticket.generation) << 32, 0, 0, 0];
        change(&mut words);
        self.line(ahead, self.tag(self.position + ahead), words);
    }

    pub(crate) fn poll(&mut self) -> Result<Option<Completed>, Violation> {
        self.host.poll(&mut self.reader)
    }

    pub(crate) fn body(&self, ticket: Ticket, outcome: &Outcome) -> Vec<u8> {
        let mut bytes = vec![MaybeUninit::uninit(); outcome.body_len as usize];
        self.host.copy_response(ticket, outcome, 0, &mut bytes);
        // SAFETY: `copy_response` has written all of them.
        bytes.into_iter().map(|byte| unsafe { byte.assume_init() }).collect()
    }

    /// What a node does with a lane that it cut: everything ends, once, and every slot is free.
    pub(crate) fn settle(&mut self, open: &[Ticket]) {
        let mut lost = Vec::new();
        self.host.settle_all(&mut self.reader, |completed| lost.push(completed.ticket));
        for ticket in open {
            let once = lost.iter().filter(|found| *found == ticket).count();
            assert!(once <= 1 && self.host.outcome(*ticket).is_some(), "{ticket:?} has no outcome");
            self.host.release(*ticket);
        }
        assert_eq!(self.host.free_slots(), GEOMETRY.slots());
    }
}
