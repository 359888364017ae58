//! attack  : 105_hole_alignment_checks
//! class   : hole
//! what    : Switches alignment checks on and returns: who is the first to make a misaligned access?
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; "" ; ""
//! expect.status = OK|FAULT|BANNED
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(_input: &[u8]) -> Vec<u8> {
    // pushfq; or byte ptr [rsp + 2], 4; popfq; ret
    run::<0xc39d0402244c809c>(0, 0);
    Vec::new()
}
