//! attack  : 014_cpu_unwind_forever
//! class   : cpu
//! what    : Each Drop during unwinding raises and catches a further panic, 2^40 of them.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::panic::catch_unwind;
struct S(u32);
impl Drop for S {
    fn drop(&mut self) {
        if self.0 > 0 {
            for _ in 0..2 {
                let k = self.0 - 1;
                let _ = catch_unwind(move || {
                    let _a = S(k);
                    std::panic::resume_unwind(Box::new(k))
                });
            }
        }
    }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    let _s = S(40 + input.len() as u32 % 2);
    panic!("start")
}
