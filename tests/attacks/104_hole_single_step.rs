//! attack  : 104_hole_single_step
//! class   : hole
//! what    : Sets the trap flag: a SIGTRAP after each instruction.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT
//! expect.worker = restarted
//! expect.detail = SIGTRAP
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(_input: &[u8]) -> Vec<u8> {
    // pushfq; or byte ptr [rsp + 1], 1; popfq; ret
    vec![run::<0xc39d0101244c809c>(0, 0) as u8]
}
