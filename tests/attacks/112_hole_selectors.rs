//! attack  : 112_hole_selectors
//! class   : hole
//! what    : Loads other segment selectors: none, and those of the stack.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; "" ; ""
//! expect.status = OK|FAULT
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(_input: &[u8]) -> Vec<u8> {
    // mov ds, edi; mov es, edi; mov gs, edi; ret
    run::<0x90c3ef8ec78edf8e>(0, 0);
    // mov ds, edi; ret
    run::<0x9090909090c3df8e>(0x2b, 0);
    Vec::new()
}
