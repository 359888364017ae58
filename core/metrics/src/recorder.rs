//! The side of a worker or an attached host: counting.
#![expect(unsafe_code, reason = "a view of a mapping")]

use std::io;
use std::os::fd::BorrowedFd;

use microfaas_lane::Status;
use microfaas_lane::sync::{AtomicU64, Ordering};
use microfaas_sys::mapping::Mapping;
use microfaas_sys::memfd;

use crate::bucket::bucket_of;
use crate::layout::{FUNCTIONS, Layout, REGION_BYTES};

/// One call that is over.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Dense number of the function.
    pub function: u32,
    /// How it ended.
    pub status: Status,
    /// Body and metadata of the request.
    pub request_bytes: u64,
    /// Body and metadata of the response.
    pub response_bytes: u64,
    /// Time on the core.
    pub cpu_ns: u64,
    /// `None` for a call that never ran, of which nothing else is counted.
    pub times: Option<Times>,
}

/// How long a call took that ran, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// From submission to start.
    pub queue_ns: u64,
    /// From submission to completion.
    pub total_ns: u64,
}

/// What a worker counts in, or an attached host. There is one in the process that was given the region.
#[derive(Debug)]
pub struct Recorder {
    mapping: Mapping,
}

impl Recorder {
    /// Maps a region that [`Region::create`](crate::Region::create) has made.
    ///
    /// # Errors
    /// As `mmap(2)`; where it is of another size, as that of a node of another version may be.
    pub fn map(region: BorrowedFd<'_>) -> io::Result<Self> {
        if memfd::bytes(region)? != REGION_BYTES as u64 {
            return Err(io::Error::other("a region of another size"));
        }
        let mapping = Mapping::shared_rw(region, REGION_BYTES, 0)?;
        // The bits, which every first call of a function looks at.
        mapping.populate(0..4096)?;
        Ok(Self { mapping })
    }

    fn layout(&self) -> &Layout {
        // SAFETY: a mapping of the layout's size, aligned to a page, for as long as the value lives; it holds atomics only, for which any content is valid.
        unsafe { self.mapping.base().cast().as_ref() }
    }

    /// Counts a call.
    ///
    /// # Cost
    /// A few nanoseconds: nine additions to five lines. A page fault for the first call of a function.
    #[inline]
    pub fn record(&self, record: &Record) {
        let layout = self.layout();
        let number = (record.function as usize).min(FUNCTIONS);
        let block = &layout.blocks[number];
        if add(&block.calls[record.status as usize], 1) == 0 {
            touch(layout, number);
        }
        let Some(times) = record.times else { return };
        add(&block.request_bytes, record.request_bytes);
        add(&block.response_bytes, record.response_bytes);
        add(&block.cpu_ns, record.cpu_ns);
        add(&block.queue_ns, times.queue_ns);
        add(&block.total_ns, times.total_ns);
        add(&block.queue[bucket_of(times.queue_ns)], 1);
        add(&block.run[bucket_of(record.cpu_ns)], 1);
        add(&block.total[bucket_of(times.total_ns)], 1);
    }
}

impl Recorder {
    /// Counts a call that never ran. Any number of threads may do so at once, where none [records](Self::record).
    ///
    /// # Cost
    /// An addition to a line that others write; a page fault for the first call of a function.
    pub fn count(&self, function: u32, status: Status) {
        let layout = self.layout();
        let number = (function as usize).min(FUNCTIONS);
        if layout.blocks[number].calls[status as usize].fetch_add(1, Ordering::Relaxed) == 0 {
            layout.touched[number / 64].fetch_or(1 << (number % 64), Ordering::Relaxed);
        }
    }
}

/// The first call of a function that ends with this status.
#[cold]
fn touch(layout: &Layout, number: usize) {
    let word = &layout.touched[number / 64];
    word.store(word.load(Ordering::Relaxed) | 1 << (number % 64), Ordering::Relaxed);
}

/// Nobody else writes here, so this is no read-modify-write. Returns what was there.
#[inline]
fn add(word: &AtomicU64, n: u64) -> u64 {
    let old = word.load(Ordering::Relaxed);
    word.store(old.wrapping_add(n), Ordering::Relaxed);
    old
}
