//! The node's side: making a region, and reading it.
#![expect(unsafe_code, reason = "a view of a mapping")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use microfaas_lane::Status;
use microfaas_lane::sync::{AtomicU64, Ordering};
use microfaas_sys::mapping::Mapping;
use microfaas_sys::memfd::{self, Seals};

use crate::bucket::BUCKETS;
use crate::layout::{Block, FUNCTIONS, Layout, REGION_BYTES};
use crate::usage::{Histogram, Usage};

/// A worker's region, to be read. It stays readable when the worker is gone.
#[derive(Debug)]
pub struct Region {
    mapping: Mapping,
}

impl Region {
    /// A new region, and the descriptor for its worker.
    ///
    /// # Errors
    /// As `memfd_create(2)` and `mmap(2)`: out of descriptors or memory.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let fd = memfd::create(c"microfaas-metrics", REGION_BYTES as u64)?;
        memfd::seal(fd.as_fd(), Seals::SIZE)?;
        let mapping = Mapping::shared_ro(fd.as_fd(), REGION_BYTES)?;
        Ok((Self { mapping }, fd))
    }

    fn layout(&self) -> &Layout {
        // SAFETY: a mapping of the layout's size, aligned to a page, for as long as the value lives; it holds atomics only, for which any content is valid.
        // Nothing of this type stores to them.
        unsafe { self.mapping.base().cast().as_ref() }
    }

    /// What calls of a function number have used; of all numbers from [`FUNCTIONS`] on together, for one of them. `None` where there was none.
    /// Not from one moment: a call that ends meanwhile may be in one sum and not yet in another.
    ///
    /// # Cost
    /// One look where there was no call, else a page is read. Nothing is committed.
    #[must_use]
    pub fn usage(&self, function: u32) -> Option<Usage> {
        self.block(function).map(read)
    }

    /// Calls of a function number by status, in the order of [`Status::ALL`]; else as [`usage`](Self::usage).
    ///
    /// # Cost
    /// One look where there was no call, else two cache lines are read.
    #[must_use]
    pub fn calls(&self, function: u32) -> Option<[u64; Status::ALL.len()]> {
        self.block(function).map(calls)
    }

    fn block(&self, function: u32) -> Option<&Block> {
        let layout = self.layout();
        let number = (function as usize).min(FUNCTIONS);
        let touched = layout.touched[number / 64].load(Ordering::Relaxed) >> (number % 64) & 1 == 1;
        touched.then(|| &layout.blocks[number])
    }
}

fn calls(block: &Block) -> [u64; Status::ALL.len()] {
    std::array::from_fn(|status| get(&block.calls[status]))
}

fn read(block: &Block) -> Usage {
    let mut usage = Usage { calls: calls(block), ..Usage::default() };
    usage.cpu_ns = get(&block.cpu_ns);
    usage.request_bytes = get(&block.request_bytes);
    usage.response_bytes = get(&block.response_bytes);
    usage.queue = histogram(&block.queue, get(&block.queue_ns));
    usage.run = histogram(&block.run, usage.cpu_ns);
    usage.total = histogram(&block.total, get(&block.total_ns));
    usage
}

fn histogram(from: &[AtomicU64; BUCKETS], sum_ns: u64) -> Histogram {
    let mut counts = Box::new([0; BUCKETS]);
    for (to, from) in counts.iter_mut().zip(from) {
        *to = get(from);
    }
    Histogram::new(counts, sum_ns)
}

fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}
