//! attack  : 110_hole_thread_pointer
//! class   : hole
//! what    : Moves the thread pointer away (where the processor lets it) and returns: thread-locals of the worker and of signal handlers are gone. An alarm that comes in between puts it right.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(_input: &[u8]) -> Vec<u8> {
    // wrfsbase rdi; ret
    vec![run::<0x9090c3d7ae0f48f3>(0, 0) as u8]
}
