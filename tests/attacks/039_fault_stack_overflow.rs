//! attack  : 039_fault_stack_overflow
//! class   : fault
//! what    : Unbounded recursion: guard page hit; needs sigaltstack; std handler prints and aborts if installed.
//! profile : nostd   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
#[inline(never)]
fn r(n: u64) -> u64 {
    let a = [n; 32];
    std::hint::black_box(&a);
    if n == u64::MAX { 0 } else { r(n + 1) + a[(n % 32) as usize] }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    r(input.len() as u64).to_le_bytes().to_vec()
}
