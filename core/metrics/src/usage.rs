//! Numbers that were read, in private memory.

use microfaas_lane::Status;

use crate::bucket::{BUCKETS, lower_bound_ns};

/// What calls have used. Sums stay at their greatest value instead of wrapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls that ended, by status in the order of [`Status::ALL`].
    pub calls: [u64; Status::ALL.len()],
    /// CPU time of the calls that ran.
    pub cpu_ns: u64,
    /// Body and metadata of requests.
    pub request_bytes: u64,
    /// Body and metadata of responses.
    pub response_bytes: u64,
    /// From submission to start, of calls that ran.
    pub queue: Histogram,
    /// CPU time, of calls that ran.
    pub run: Histogram,
    /// From submission to completion, of calls that ran.
    pub total: Histogram,
}

impl Usage {
    /// Calls that ended with this status.
    #[must_use]
    pub fn calls(&self, status: Status) -> u64 {
        self.calls[status as usize]
    }

    /// Calls that ended.
    #[must_use]
    pub fn calls_total(&self) -> u64 {
        self.calls.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Adds what others have used.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.calls.iter_mut().zip(&other.calls) {
            *to = to.saturating_add(*from);
        }
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.queue.add(&other.queue);
        self.run.add(&other.run);
        self.total.add(&other.total);
    }
}

/// How many times were how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    /// All times together, in nanoseconds.
    pub sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), sum_ns: 0 }
    }
}

impl Histogram {
    pub(crate) fn new(counts: Box<[u64; BUCKETS]>, sum_ns: u64) -> Self {
        Self { counts, sum_ns }
    }

    /// How many times there are in each bucket.
    #[must_use]
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// How many times there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The time that this share of all, 0 to 1, is not above, in nanoseconds, within 12.5 %; `None` where there are none.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rank among so many is not that precise")]
        let rank = share.clamp(0.0, 1.0) * count as f64;
        let mut below = 0_u64;
        let found = self.counts.iter().position(|n| {
            below = below.saturating_add(*n);
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            let reached = below > 0 && below as f64 >= rank;
            reached
        });
        let bucket = found.unwrap_or(BUCKETS - 1);
        let low = lower_bound_ns(bucket);
        let high = if bucket + 1 < BUCKETS { lower_bound_ns(bucket + 1) } else { low };
        Some(low + (high - low) / 2)
    }

    /// Adds another's times.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.counts.iter_mut().zip(other.counts.iter()) {
            *to = to.saturating_add(*from);
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// Which times have come since `earlier` was read. A count that was greater then, as after a restart, counts as all new.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut new = self.clone();
        for (n, then) in new.counts.iter_mut().zip(earlier.counts.iter()) {
            *n = n.checked_sub(*then).unwrap_or(*n);
        }
        new.sum_ns = self.sum_ns.checked_sub(earlier.sum_ns).unwrap_or(self.sum_ns);
        new
    }

    /// The buckets that are not empty, with their counts.
    pub fn filled(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, n)| *n > 0)
    }

    /// Of buckets and counts as [`filled`](Self::filled) gives them. A bucket that there is not counts as the last one.
    #[must_use]
    pub fn of(filled: impl IntoIterator<Item = (usize, u64)>, sum_ns: u64) -> Self {
        let mut all = Self { sum_ns, ..Self::default() };
        for (bucket, n) in filled {
            let count = &mut all.counts[bucket.min(BUCKETS - 1)];
            *count = count.saturating_add(n);
        }
        all
    }
}
