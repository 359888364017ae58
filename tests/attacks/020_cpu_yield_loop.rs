//! attack  : 020_cpu_yield_loop
//! class   : cpu
//! what    : sched_yield forever (a syscall every iteration; CPU accounting games).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT|DENIED
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut n = input.len();
    loop {
        std::thread::yield_now();
        n = n.wrapping_add(1);
        if n == usize::MAX {
            return vec![];
        }
    }
}
