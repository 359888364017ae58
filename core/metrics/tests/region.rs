//! Both sides of a region, in one process.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails them")]
#![expect(clippy::print_stdout, reason = "a measurement prints what it found")]

use std::hint::black_box;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use microfaas_lane::Status;
use microfaas_metrics::{FUNCTIONS, Histogram, REGION_BYTES, Record, Recorder, Region, Times, Usage};
use microfaas_sys::mapping::Mapping;
use microfaas_sys::memfd;

fn call(function: u32, status: Status, ns: u64) -> Record {
    let times = Some(Times { queue_ns: ns / 2, total_ns: 2 * ns });
    Record { function, status, request_bytes: 3, response_bytes: 5, cpu_ns: ns, times }
}

fn region() -> (Region, Recorder) {
    let (region, fd) = Region::create().unwrap();
    let recorder = Recorder::map(fd.as_fd()).unwrap();
    (region, recorder)
}

#[test]
fn what_was_recorded_is_read() {
    let (region, recorder) = region();
    assert_eq!(region.usage(7), None);
    for n in 1..=100 {
        recorder.record(&call(7, Status::Ok, n * 1000));
    }
    recorder.record(&call(7, Status::Panic, 1));
    recorder.record(&Record { times: None, cpu_ns: 9, ..call(7, Status::Expired, 9) });
    let usage = region.usage(7).unwrap();
    assert_eq!((region.calls(7), region.calls(6)), (Some(usage.calls), None));
    assert_eq!((usage.calls(Status::Ok), usage.calls(Status::Panic), usage.calls_total()), (100, 1, 102));
    assert_eq!((usage.cpu_ns, usage.request_bytes, usage.response_bytes), (5_050_001, 303, 505));
    assert_eq!((usage.queue.count(), usage.run.count(), usage.total.count()), (101, 101, 101));
    assert_eq!(usage.total.sum_ns, 2 * 5_050_001);
    for (histogram, unit) in [(&usage.queue, 500.0), (&usage.run, 1000.0), (&usage.total, 2000.0)] {
        for share in [0.1, 0.5, 0.9, 0.99] {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let found = histogram.quantile_ns(share).unwrap() as f64;
            let exact = share * 101.0 * unit;
            assert!((found / exact - 1.0).abs() < 0.14, "{share}: {found} where {exact} is right");
        }
    }
    assert_eq!(region.usage(6), None);
    assert_eq!(region.usage(8), None);
}

/// Counting beyond its end would end the process.
#[test]
fn a_region_of_another_size_is_refused() {
    for bytes in [REGION_BYTES - 4096, REGION_BYTES + 4096] {
        let fd = memfd::create(c"microfaas-test", bytes as u64).unwrap();
        assert!(Recorder::map(fd.as_fd()).is_err(), "{bytes}");
    }
}

#[test]
fn numbers_beyond_the_last_block_share_one() {
    let (region, recorder) = region();
    let last = u32::try_from(FUNCTIONS).unwrap();
    for function in [last - 1, last, last + 1, u32::MAX] {
        recorder.record(&call(function, Status::Ok, 10));
    }
    assert_eq!(region.usage(last - 1).unwrap().calls_total(), 1);
    assert_eq!(region.usage(last).unwrap().calls_total(), 3);
    assert_eq!(region.usage(u32::MAX), region.usage(last));
}

#[test]
fn any_content_is_read_as_numbers() {
    let (region, fd) = Region::create().unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mapping = Mapping::shared_rw(fd.as_fd(), REGION_BYTES, 0).unwrap();
    for fill in [u64::MAX, 1 << 63 | 7, 0] {
        // The bits and three blocks.
        for word in 0..4 * 4096 / 8 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = if fill == 0 { seed } else { fill };
            scribble(&mapping, word, value);
        }
        let mut sum = Usage::default();
        for function in 0..3 {
            if let Some(usage) = region.usage(function) {
                sum.add(&usage);
                sum.add(&usage);
            }
        }
        let _ = (sum.calls_total(), sum.queue.quantile_ns(0.5), sum.run.quantile_ns(f64::NAN));
        assert!(fill == 0 || sum.cpu_ns == u64::MAX, "sums stay at their greatest value");
    }
}

#[expect(unsafe_code, reason = "does what a hostile worker does")]
fn scribble(mapping: &Mapping, word: usize, value: u64) {
    // SAFETY: within the mapping, whose size is `REGION_BYTES`.
    let place = unsafe { mapping.base().cast::<u64>().add(word) };
    // SAFETY: as above, and aligned; the reader looks only between these writes.
    unsafe { place.write_volatile(value) };
}

#[test]
fn looking_commits_nothing() {
    let (region, fd) = Region::create().unwrap();
    let recorder = Recorder::map(fd.as_fd()).unwrap();
    let blocks = || std::fs::File::from(fd.try_clone().unwrap()).metadata().unwrap();
    recorder.record(&call(3, Status::Ok, 1));
    let before = blocks().blocks();
    assert!((0..u32::try_from(FUNCTIONS).unwrap()).filter(|f| region.usage(*f).is_some()).eq([3]));
    assert_eq!(blocks().blocks(), before);
    assert_eq!(before * 512, 2 * 4096, "the bits and one block");
}

#[test]
fn what_has_come_since() {
    let old = Histogram::of([(3, 5), (4, 1)], 100);
    let new = Histogram::of([(3, 7), (5, 2), (10_000, 1)], 300);
    let since = new.since(&old);
    assert_eq!(since.filled().collect::<Vec<_>>(), [(3, 2), (5, 2), (159, 1)]);
    assert_eq!(since.sum_ns, 200);
    assert_eq!(Histogram::default().quantile_ns(0.5), None);
}

/// Prints what recording costs: `cargo test --release -p microfaas-metrics -- --ignored --nocapture cost`.
#[test]
#[ignore = "a measurement, not a check"]
fn cost() {
    const CALLS: u64 = 10_000_000;
    let (region, recorder) = region();
    for functions in [1_u32, 16, 1000] {
        for function in 0..functions {
            recorder.record(&call(function, Status::Ok, 1));
        }
        let mut best = u128::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for n in 0..CALLS {
                let function = u32::try_from(n % u64::from(functions)).unwrap();
                recorder.record(black_box(&call(function, Status::Ok, 300 + (n & 0xff))));
            }
            best = best.min(start.elapsed().as_nanos());
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let each = best as f64 / CALLS as f64;
        println!("{functions} functions: {each:.2} ns a call");
    }
    assert!(region.usage(0).is_some());
}
