//! attack  : 099_ctl_echo
//! class   : control
//! what    : CONTROL: echo.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.equals = input
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    input.to_vec()
}
