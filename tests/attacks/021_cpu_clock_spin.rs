//! attack  : 021_cpu_clock_spin
//! class   : cpu
//! what    : Spins on Instant::now (vDSO: preempted inside the vDSO seqlock section, PC outside every module).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::time::{Duration, Instant};
pub fn attack(input: &[u8]) -> Vec<u8> {
    let t = Instant::now();
    while t.elapsed() < Duration::from_secs(30 + input.len() as u64) {}
    vec![1]
}
