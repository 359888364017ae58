//! attack  : 010_cpu_catch_unwind_swallow
//! class   : cpu
//! what    : Tries to swallow an unwind-based timeout: infinite loop inside catch_unwind inside a loop.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : A timeout delivered as an unwind is swallowed; the runtime must detect the re-entry and use the hard path (discard stack / restart worker).
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::panic::{AssertUnwindSafe, catch_unwind};
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut n = 0u64;
    loop {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            loop {
                n = std::hint::black_box(n + 1)
            }
        }));
        if n == input.len() as u64 + u64::MAX / 2 {
            return vec![];
        }
    }
}
