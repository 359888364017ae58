//! attack  : 124_hole_unmap
//! class   : hole
//! what    : Gives back all memory of the process, or only the stack that it runs on.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; "stack"
//! expect.status = FAULT|WORKER_LOST|BANNED
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::system_call;

pub fn attack(input: &[u8]) -> Vec<u8> {
    let here = [0u8; 1];
    let (start, bytes) = match input {
        b"stack" => ((here.as_ptr() as u64 & !0xfff) - 0x10_0000, 0x20_0000),
        _ => (0, 0x7fff_ffff_f000),
    };
    // munmap
    system_call(11, &[start, bytes]);
    vec![here[0]]
}
