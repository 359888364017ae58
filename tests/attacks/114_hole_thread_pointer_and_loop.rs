//! attack  : 114_hole_thread_pointer_and_loop
//! class   : hole
//! what    : Moves the thread pointer away (where the processor lets it) and loops: the handler that ends the call finds no thread-locals.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT|TIMEOUT
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(_input: &[u8]) -> Vec<u8> {
    // wrfsbase rdi; jmp $
    vec![run::<0x90feebd7ae0f48f3>(0, 0) as u8]
}
