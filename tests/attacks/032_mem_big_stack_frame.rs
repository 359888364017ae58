//! attack  : 032_mem_big_stack_frame
//! class   : mem
//! what    : 64 MiB array on the stack: jumps past a small guard page unless stack probes are on.
//! profile : nostd   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
#[inline(never)]
fn big(x: u8) -> u8 {
    let mut a = [x; 64 << 20];
    std::hint::black_box(&mut a);
    a[12345]
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    vec![big(input.len() as u8)]
}
