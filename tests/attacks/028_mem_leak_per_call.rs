//! attack  : 028_mem_leak_per_call
//! class   : mem
//! what    : mem::forget of 1 MiB per call; 1000 calls.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : "" ; "" ; ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.rss_delta = <8MiB after 1000 calls
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    std::mem::forget(std::hint::black_box(vec![input.len() as u8 | 1; 1 << 20]));
    vec![1]
}
