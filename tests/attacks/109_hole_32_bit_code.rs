//! attack  : 109_hole_32_bit_code
//! class   : hole
//! what    : A far return to the segment for 32-bit code, where every address is cut: whoever resumes the thread there faults again, for ever.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT
//! expect.worker = restarted
//! expect.detail = SIGSEGV
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(_input: &[u8]) -> Vec<u8> {
    // push rsi; push rdi; retfq
    vec![run::<0x90909090cb485756>(0x1000, 0x23) as u8]
}
