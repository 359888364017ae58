//! attack  : 011_cpu_panic_storm
//! class   : cpu
//! what    : catch_unwind(panic!) forever: preemption lands in the panic machinery, in the unwinder, in dl_iterate_phdr with the loader lock held.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : After each TIMEOUT the next request, a cold module load (dlopen) and a panicking function must all work: checks dl_load_lock / panic count / unwinder cache. Run >= 10_000 times.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::panic::catch_unwind;
pub fn attack(input: &[u8]) -> Vec<u8> {
    let n = input.len();
    loop {
        let r = catch_unwind(|| {
            if std::hint::black_box(n) < usize::MAX {
                std::panic::resume_unwind(Box::new(7u32))
            }
            1u8
        });
        if let Ok(v) = r {
            return vec![v];
        }
    }
}
