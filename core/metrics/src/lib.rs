//! What calls have used, counted by a worker in memory that its node reads.
//!
//! Each worker has one region, a sealed memfd that it maps writable and its node read-only. It has a page for each function number: calls by status, CPU
//! time, bytes, and three histograms. The worker is the only writer, so counting is a load, an addition and a store to lines that nobody else
//! writes: no lock, no read-modify-write, no system call. Readers take what they find whenever they like, which costs the worker at most a cache miss.
//!
//! An attached host has one, too, for calls that it decides without a worker. Any of its threads [counts](Recorder::count) there, and it is believed as little.
//!
//! **The worker is hostile to the reader.** It may write anything there at any time. All of it is plain numbers, of which any value is valid: they are
//! added with saturation, and nothing is indexed or sized by them. A worker that lies spoils what is said about its own functions, and nothing else.

mod bucket;
mod layout;
mod recorder;
mod region;
mod usage;

pub use bucket::{BUCKETS, bucket_of, lower_bound_ns};
pub use layout::{FUNCTIONS, REGION_BYTES};
pub use recorder::{Record, Recorder, Times};
pub use region::Region;
pub use usage::{Histogram, Usage};
