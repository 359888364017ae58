//! attack  : 128_sys_arguments
//! class   : syscall
//! what    : Reads the program's name and its arguments, for which no system call is needed: they name no place on the machine.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.not_contains = /
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

pub fn attack(_input: &[u8]) -> Vec<u8> {
    std::env::args().collect::<Vec<_>>().join(" ").into_bytes()
}
