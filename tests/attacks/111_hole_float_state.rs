//! attack  : 111_hole_float_state
//! class   : hole
//! what    : Leaves the floating point units with traps on, full, and with an exception pending.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "mxcsr" ; "full" ; "pending" ; "mxcsr" ; "full" ; "pending"
//! expect.status = OK|FAULT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(input: &[u8]) -> Vec<u8> {
    let word = std::hint::black_box([if input == b"mxcsr" { 0x6000u32 } else { 0x0300 }; 1]);
    let at = word.as_ptr() as u64;
    match input {
        // ldmxcsr [rdi]; ret
        b"mxcsr" => run::<0x90909090c317ae0f>(at, 0),
        // fld1; fld1; fld1; ret
        b"full" => run::<0x90c3e8d9e8d9e8d9>(0, 0),
        // fldcw [rdi]; fsqrt; ret
        _ => run::<0x909090c3fad92fd9>(at, 0),
    };
    Vec::new()
}
