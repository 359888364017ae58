//! attack  : 008_cpu_recursive_fib
//! class   : cpu
//! what    : Deep-ish recursion that never finishes (many frames on the stack when preempted).
//! profile : nostd   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
fn fib(n: u64) -> u64 {
    if n < 2 { n } else { std::hint::black_box(fib(n - 1)).wrapping_add(fib(n - 2)) }
}
fn deep(d: u32, n: u64) -> u64 {
    if d == 0 { fib(n) } else { std::hint::black_box(deep(d - 1, n)) + 1 }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    deep(2000, 80 + input.len() as u64 % 2).to_le_bytes().to_vec()
}
