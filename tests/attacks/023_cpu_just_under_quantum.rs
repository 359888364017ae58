//! attack  : 023_cpu_just_under_quantum
//! class   : cpu
//! what    : Finishes right at the quantum edge (input = target microseconds): races completion against the timer.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK|TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : Sweep input over quantum-5us..quantum+5us, 100_000 calls: exactly one answer each; a late timer must never hit the NEXT request.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::time::{Duration, Instant};
pub fn attack(input: &[u8]) -> Vec<u8> {
    let us = input.get(..4).map_or(100, |b| u32::from_le_bytes(b.try_into().unwrap()));
    let t = Instant::now();
    while t.elapsed() < Duration::from_micros(us as u64) {}
    vec![0xAB; 8]
}
