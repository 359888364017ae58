//! A worker's region of counts, full of whatever it likes: it is read as numbers, which can be added, compared and told on, and nothing is led by them.
#![no_main]

use std::os::fd::AsFd;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use microfaas_metrics::{
    BUCKETS, FUNCTIONS, Histogram, REGION_BYTES, Region, Usage, bucket_of, lower_bound_ns,
};
use microfaas_sys::mapping::Mapping;

const PAGE_WORDS: usize = 4096 / 8;
/// Functions that are scribbled at and looked at: the first ones, and all that are not counted apart.
const LOOKED_AT: [u32; 4] = [0, 1, 2, u32::MAX];

#[derive(Debug, Arbitrary)]
struct Input {
    /// Page (the bits, a function's), word in it, value.
    scribbles: Vec<(u8, u16, u64)>,
    shares: [f64; 3],
}

thread_local! {
    static REGION: (Region, Mapping) = {
        let (region, fd) = Region::create().expect("a region");
        let mapping = Mapping::shared_rw(fd.as_fd(), REGION_BYTES, 0).expect("a mapping of it");
        (region, mapping)
    };
}

fn place(page: u8, word: u16) -> usize {
    let page = [0, 1, 2, 3, FUNCTIONS + 1][usize::from(page % 5)];
    page * PAGE_WORDS + usize::from(word) % PAGE_WORDS
}

fn write(mapping: &Mapping, word: usize, value: u64) {
    // SAFETY: inside the mapping.
    let at = unsafe { mapping.base().cast::<u64>().add(word) };
    // SAFETY: aligned, inside, and the reader has no reference but to atomics.
    unsafe { at.write_volatile(value) };
}

fn check(times: &Histogram, shares: &[f64]) {
    assert_eq!(&Histogram::of(times.filled(), times.sum_ns), times);
    assert_eq!(times.since(times).count(), 0);
    assert!(times.since(&Histogram::default()) == *times);
    let mut quantiles = Vec::new();
    for share in shares.iter().copied().chain([0.0, 0.5, 1.0]) {
        let found = times.quantile_ns(share);
        assert_eq!(found.is_some(), times.count() > 0);
        assert!(found.is_none_or(|ns| ns <= lower_bound_ns(BUCKETS - 1)));
        quantiles.extend(found.filter(|_| !share.is_nan()).map(|ns| (share, ns)));
    }
    quantiles.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(quantiles.is_sorted_by_key(|(_, ns)| *ns), "{quantiles:?}");
}

fuzz_target!(|input: Input| REGION.with(|(region, mapping)| {
    for (page, word, value) in &input.scribbles {
        write(mapping, place(*page, *word), *value);
        assert!(bucket_of(*value) < BUCKETS);
    }
    let mut sum = Usage::default();
    for usage in LOOKED_AT.iter().filter_map(|number| region.usage(*number)) {
        let before = sum.calls_total();
        sum.add(&usage);
        assert!(sum.calls_total() >= before && sum.cpu_ns >= usage.cpu_ns);
        for times in [&usage.queue, &usage.run, &usage.total, &sum.total] {
            check(times, &input.shares);
        }
    }
    for (page, word, _) in &input.scribbles {
        write(mapping, place(*page, *word), 0);
    }
    assert!(LOOKED_AT.iter().all(|number| region.usage(*number).is_none()));
}));
