//! attack  : 108_hole_arithmetic_trap
//! class   : hole
//! what    : A division by zero that no compiler has looked at: SIGFPE.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; ""
//! expect.status = FAULT
//! expect.worker = same
//! expect.detail = SIGFPE
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(_input: &[u8]) -> Vec<u8> {
    // xor edx, edx; xor ecx, ecx; div ecx; ret
    vec![run::<0x90c3f1f7c931d231>(0, 0) as u8]
}
