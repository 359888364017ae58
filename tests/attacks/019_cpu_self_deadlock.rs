//! attack  : 019_cpu_self_deadlock
//! class   : cpu
//! what    : Locks a Mutex twice: blocked in futex (not burning CPU, so a CPU-time quantum would never fire).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT|DENIED
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : The quantum must be wall-clock (or wall+cpu).
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::sync::Mutex;
pub fn attack(input: &[u8]) -> Vec<u8> {
    let m = Mutex::new(input.len());
    let _a = m.lock();
    let b = m.lock().map(|g| *g).unwrap_or(0);
    vec![b as u8]
}
