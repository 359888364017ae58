//! attack  : 102_ctl_one_mib
//! class   : control
//! what    : CONTROL: 1 MiB response with checkable content.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    (0..1 << 20).map(|i: u32| (i.wrapping_mul(2654435761) >> 24) as u8).collect()
}
