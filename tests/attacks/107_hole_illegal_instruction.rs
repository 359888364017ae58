//! attack  : 107_hole_illegal_instruction
//! class   : hole
//! what    : An instruction that does not exist: SIGILL.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; ""
//! expect.status = FAULT
//! expect.worker = same
//! expect.detail = SIGILL
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(_input: &[u8]) -> Vec<u8> {
    // ud2
    vec![run::<0x9090909090900b0f>(0, 0) as u8]
}
