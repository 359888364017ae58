//! Where everything lies in the region, once, for both sides.

use microfaas_lane::Status;
use microfaas_lane::sync::AtomicU64;

use crate::bucket::BUCKETS;

/// Function numbers that are counted apart: as many as a node has names for. Functions of higher numbers, which come where each of so many
/// names has been replaced while it ran, are counted together, in one block more.
pub const FUNCTIONS: usize = 16_384;
/// Bytes of the region. Memory is committed page by page, as functions are called for the first time.
pub const REGION_BYTES: usize = size_of::<Layout>();
/// Room for more statuses than there are.
pub(crate) const STATUSES: usize = 16;
/// One bit for each block.
pub(crate) const TOUCHED_WORDS: usize = (FUNCTIONS + 1).div_ceil(64);

/// A function's block: one page, so that counting touches one page more than the call does. Times in nanoseconds. The worker writes it, anybody reads.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Block {
    /// CPU time.
    pub(crate) cpu_ns: AtomicU64,
    /// Body and metadata of requests.
    pub(crate) request_bytes: AtomicU64,
    /// Body and metadata of responses.
    pub(crate) response_bytes: AtomicU64,
    /// Sum of the queue histogram.
    pub(crate) queue_ns: AtomicU64,
    /// Sum of the total histogram.
    pub(crate) total_ns: AtomicU64,
    /// By number of the status. What most calls end with is in the first line, with the sums.
    pub(crate) calls: [AtomicU64; STATUSES],
    pub(crate) reserved: [AtomicU64; 3],
    /// From submission to start.
    pub(crate) queue: [AtomicU64; BUCKETS],
    /// CPU time.
    pub(crate) run: [AtomicU64; BUCKETS],
    /// From submission to completion.
    pub(crate) total: [AtomicU64; BUCKETS],
}

/// The region: which blocks have been written to, on the first page, then the blocks.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Layout {
    /// Bit n is set when block n is written for the first time: what was never committed is not to be by looking at it.
    pub(crate) touched: [AtomicU64; TOUCHED_WORDS],
    pub(crate) blocks: [Block; FUNCTIONS + 1],
}

const _: () = assert!(Status::ALL.len() <= STATUSES, "every status has a counter");
const _: () = assert!(size_of::<Block>() == 4096, "a block is a page");
const _: () =
    assert!(core::mem::offset_of!(Block, calls) + 3 * 8 == 64, "OK, ERROR and PANIC are in the first line");
const _: () = assert!(core::mem::offset_of!(Block, queue).is_multiple_of(64), "histograms begin with a line");
const _: () = assert!(core::mem::offset_of!(Layout, blocks) == 4096, "the bits are a page");
const _: () = assert!(REGION_BYTES == 4096 * (FUNCTIONS + 2), "nothing lies between the blocks");
