//! attack  : 103_hole_breakpoint
//! class   : hole
//! what    : A breakpoint where no debugger is: SIGTRAP.
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
    // int3; ret
    vec![run::<0x909090909090c3cc>(0, 0) as u8]
}
