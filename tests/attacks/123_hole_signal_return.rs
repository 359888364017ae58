//! attack  : 123_hole_signal_return
//! class   : hole
//! what    : Returns from a signal that never came, with all signals blocked and another alternate stack, and goes on for ever, or faults.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; "fault"
//! expect.status = TIMEOUT|FAULT|WORKER_LOST|BANNED
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::{rd, run};

fn endless() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
fn faulty() -> ! {
    std::hint::black_box(rd::<u64>(std::hint::black_box(8)));
    endless()
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    let go_on: fn() -> ! = if input == b"fault" { faulty } else { endless };
    let stack = Box::leak(vec![0u64; 4096].into_boxed_slice());
    // `struct ucontext` as the kernel reads it: flags, the alternate stack, registers, the signal mask.
    let mut context = [0u64; 64];
    context[0] = 6;
    (context[2], context[4]) = (0x1000, 0x10000);
    context[5 + 15] = (stack.as_ptr() as u64 + 16384 & !15) + 8;
    context[5 + 16] = go_on as usize as u64;
    (context[5 + 17], context[5 + 18]) = (0x202, 0x002b_0000_0000_0033);
    context[37] = if input == b"fault" { 0 } else { !0 };
    // mov rsp, rdi; mov eax, esi; syscall (rt_sigreturn)
    run::<0x90050ff089fc8948>(context.as_ptr() as u64, 15);
    Vec::new()
}
