//! Log-linear buckets: each power of two is divided into four, so a bucket's middle is within 12.5 % of whatever lies in it.

/// Buckets of a histogram: the first is everything below 32 ns, the last everything from 7 hours and 19 minutes on.
pub const BUCKETS: usize = 160;
/// The first bucket ends at two to this, in nanoseconds: below the time of one call, so nothing is lost there.
const FIRST_BITS: u32 = 5;
/// Two to this is how many buckets a power of two has.
const PARTS_BITS: u32 = 2;

/// The bucket of a time in nanoseconds; below [`BUCKETS`].
///
/// # Cost
/// Six instructions, none of which waits for memory.
#[inline]
#[must_use]
pub const fn bucket_of(ns: u64) -> usize {
    if ns < 1 << FIRST_BITS {
        return 0;
    }
    let power = 63 - ns.leading_zeros();
    let part = (ns >> (power - PARTS_BITS)) & ((1 << PARTS_BITS) - 1);
    let bucket = 1 + (((power - FIRST_BITS) as usize) << PARTS_BITS) + part as usize;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// The least time of a bucket, in nanoseconds: where the one before it ends.
///
/// # Panics
/// Where there is no such bucket.
#[must_use]
pub const fn lower_bound_ns(bucket: usize) -> u64 {
    assert!(bucket < BUCKETS, "there is no such bucket");
    if bucket == 0 {
        return 0;
    }
    let (power, part) = ((bucket - 1) >> PARTS_BITS, (bucket - 1) & ((1 << PARTS_BITS) - 1));
    ((1 << PARTS_BITS) + part as u64) << (power + FIRST_BITS as usize - PARTS_BITS as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_between_its_buckets_bounds() {
        let powers = (0..64).map(|power| 1_u64 << power);
        let times = powers.flat_map(|n| [n - 1, n, n + 1, n + n / 4, n + n / 3, n + n / 2]).chain([u64::MAX]);
        for ns in times {
            let bucket = bucket_of(ns);
            assert!(lower_bound_ns(bucket) <= ns, "{ns} is below bucket {bucket}");
            assert!(
                bucket + 1 == BUCKETS || ns < lower_bound_ns(bucket + 1),
                "{ns} is above bucket {bucket}"
            );
        }
    }

    #[test]
    fn bounds_rise_by_a_quarter_at_most() {
        for bucket in 1..BUCKETS - 1 {
            let (low, high) = (lower_bound_ns(bucket), lower_bound_ns(bucket + 1));
            assert!(low < high && high - low <= low / 4, "bucket {bucket} is from {low} to {high}");
        }
        assert_eq!(lower_bound_ns(1), 32);
        let hours = lower_bound_ns(BUCKETS - 1) / 1_000_000_000 / 60;
        assert_eq!(hours, 7 * 60 + 19, "the last bucket begins at {hours} minutes");
    }
}
