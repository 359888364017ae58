//! attack  : 025_mem_capacity_overflow
//! class   : mem
//! what    : Vec::with_capacity(usize::MAX/2): capacity-overflow panic.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = PANIC
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let v: Vec<u64> = Vec::with_capacity(usize::MAX / 4 + input.len());
    vec![v.capacity() as u8]
}
