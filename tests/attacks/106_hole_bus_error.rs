//! attack  : 106_hole_bus_error
//! class   : hole
//! what    : A misaligned access with alignment checks on: SIGBUS.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT
//! expect.worker = restarted
//! expect.detail = SIGBUS
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::run;

pub fn attack(input: &[u8]) -> Vec<u8> {
    let words = std::hint::black_box([1u8; 32]);
    let odd = (words.as_ptr() as usize & !7) + 9;
    // pushfq; or byte ptr [rsp + 2], 4; popfq; ret
    run::<0xc39d0402244c809c>(0, 0);
    // mov rax, [rdi]; ret
    vec![run::<0x90909090c3078b48>(odd as u64, 0) as u8]
}
