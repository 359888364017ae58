//! attack  : 121_mem_aligned_frame
//! class   : mem
//! what    : A frame that is aligned to half a gibibyte: the stack pointer jumps over any guard unless what it jumps over is probed.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; ""
//! expect.status = FAULT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

#[repr(align(536870912))]
struct Aligned(u8);

#[inline(never)]
fn frame(byte: u8) -> u8 {
    let aligned = Aligned(byte);
    std::hint::black_box(&aligned).0
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    vec![frame(input.len() as u8)]
}
