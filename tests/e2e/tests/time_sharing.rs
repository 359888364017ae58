//! Calls with floating point and wide registers share one core in slices of 20 us, each the same to the bit as if it had been alone.
//!
//! In this process, since a worker does not say how often it has suspended a call: its scheduler runs in the test's thread, and each call that
//! is resumed is counted. `MICROFAAS_PAIRS` asks for another number of suspensions and resumptions.
#![expect(unsafe_code, reason = "is entered as a function, and uses AVX")]

use std::arch::x86_64::{__m256d, _mm256_fmadd_pd, _mm256_set1_pd, _mm256_sqrt_pd, _mm256_storeu_pd};
use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::time::Duration;

use microfaas_abi::{Call, OUTCOME_OK};
use microfaas_control::{BUDGET_NS_MAX, Limits, QUANTUM_NS_MIN};
use microfaas_e2e::inside::Inside;
use microfaas_e2e::{Watchdog, attacks};
use microfaas_lane::Status;

const LIMIT: Duration = Duration::from_secs(1200);
const PAIRS: u64 = 1_000_000;
/// Calls that share the core; each works for about a millisecond.
const WIDTH: u32 = 6;

/// Twelve registers of four numbers each that all depend on all rounds, and on their order.
#[target_feature(enable = "avx2,fma")]
fn wide(rounds: u32) -> [f64; 4] {
    let mut lanes: [__m256d; 12] = std::array::from_fn(|i| _mm256_set1_pd(1.0 + i as f64 / 7.0));
    for round in 0..rounds {
        let step = _mm256_set1_pd(f64::from(round & 7) / 3.0);
        for lane in &mut lanes {
            *lane = _mm256_sqrt_pd(_mm256_fmadd_pd(*lane, _mm256_set1_pd(1.000_000_1), step));
        }
    }
    let mut sum = [0.0; 4];
    let one = _mm256_set1_pd(1.0);
    let all = lanes.iter().fold(_mm256_set1_pd(0.0), |sum, lane| _mm256_fmadd_pd(sum, one, *lane));
    // SAFETY: room for four numbers.
    unsafe { _mm256_storeu_pd(sum.as_mut_ptr(), all) };
    sum
}

fn bytes_of(sum: [f64; 4]) -> Vec<u8> {
    sum.iter().flat_map(|lane| lane.to_bits().to_le_bytes()).collect()
}

/// As a function's entry: the body is the number of rounds, the answer the sums.
unsafe extern "C" fn enter_wide(argument: *mut c_void) -> u32 {
    // SAFETY: the scheduler passes a call that is this one's until it returns.
    let call = unsafe { &mut *argument.cast::<Call>() };
    // SAFETY: the body has that many bytes.
    let body = unsafe { std::slice::from_raw_parts(call.body, call.body_len) };
    let rounds = u32::from_le_bytes(body.try_into().expect("four bytes"));
    // SAFETY: the test has asked the processor.
    let sum = unsafe { wide(rounds) };
    // SAFETY: the buffer has room for thousands of bytes.
    unsafe { call.out.cast::<[f64; 4]>().write_unaligned(sum) };
    call.out_body_len = size_of::<[f64; 4]>();
    OUTCOME_OK
}

/// A kind of call.
struct Work {
    function: u32,
    body: Vec<u8>,
    answer: Vec<u8>,
}

/// The kinds, with the answers that they give when nothing disturbs them.
fn work(inside: &mut Inside) -> Vec<Work> {
    let functions = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../functions"));
    let crates = ["attacks", "hashes"].map(|name| functions.join(name));
    let modules = attacks::build(Path::new(env!("CARGO_TARGET_TMPDIR")), crates, "time-sharing-modules");
    let shared = Limits { quantum_ns: QUANTUM_NS_MIN, budget_ns: BUDGET_NS_MAX, ..Limits::default() };
    let alone = Limits { quantum_ns: BUDGET_NS_MAX, ..shared };
    let compute = inside
        .load(&modules.join("attacks.so"), &[("compute", shared), ("compute", alone)])
        .expect("a module");
    let hash =
        inside.load(&modules.join("hashes.so"), &[("hash_0", shared), ("hash_0", alone)]).expect("a module");
    let mut work = Vec::new();
    for seed in 0..3u8 {
        // Doubles one by one.
        let body = format!("{seed} {}", 20_000 + u32::from(seed) * 1000).into_bytes();
        work.push(Work { function: compute, answer: run_alone(inside, compute + 1, &body), body });
        // SHA-512, in wide integer registers where the processor has them.
        let body = [3000u32.to_le_bytes().as_slice(), &[seed; 64]].concat();
        work.push(Work { function: hash, answer: run_alone(inside, hash + 1, &body), body });
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        let function = inside.add_entry(enter_wide, compute, shared);
        for rounds in [10_000u32, 11_111, 12_222] {
            // SAFETY: the processor has both.
            let answer = bytes_of(unsafe { wide(rounds) });
            work.push(Work { function, body: rounds.to_le_bytes().into(), answer });
        }
    } else {
        eprintln!("this processor has no AVX2 or FMA: without the calls that need them");
    }
    work
}

fn run_alone(inside: &mut Inside, function: u32, body: &[u8]) -> Vec<u8> {
    inside.submit(function, body);
    let submission = inside.claim().expect("it was submitted");
    inside.start(&submission);
    let ended = inside.take().expect("a call with an hour of quantum ends at once");
    assert_eq!(ended.status, Status::Ok);
    ended.body
}

#[test]
fn calls_that_share_a_core_compute_the_same_to_the_bit() {
    let _watchdog = Watchdog::new(LIMIT);
    let pairs_wanted = std::env::var("MICROFAAS_PAIRS").ok().map_or(PAIRS, |text| text.parse().unwrap());
    let mut inside = Inside::new(2 * WIDTH).unwrap();
    let work = work(&mut inside);
    let (mut pairs, mut ended, mut next) = (0u64, 0, 0);
    let mut flights = HashMap::new();
    loop {
        while pairs < pairs_wanted && flights.len() < WIDTH as usize {
            let kind = &work[next % work.len()];
            flights.insert(inside.submit(kind.function, &kind.body), next % work.len());
            next += 1;
        }
        if let Some(submission) = inside.claim() {
            inside.start(&submission);
        }
        // True for a call that was suspended before, and goes on now.
        pairs += u64::from(inside.resume());
        while let Some(end) = inside.take() {
            let kind = flights.remove(&end.ticket).expect("a call in flight");
            assert_eq!(
                (end.status, &end.body),
                (Status::Ok, &work[kind].answer),
                "kind {kind} after {pairs}"
            );
            ended += 1;
        }
        if flights.is_empty() {
            break;
        }
    }
    eprintln!("{pairs} suspensions and resumptions in {ended} calls of {} kinds", work.len());
    assert!(pairs >= pairs_wanted && ended == next, "{pairs} pairs, {ended} of {next} calls");
}
