//! attack  : 041_fault_abort
//! class   : fault
//! what    : std::process::abort (SIGABRT; blocks signals, tgkill).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT|DENIED
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    if input.len() < usize::MAX {
        std::process::abort()
    }
    vec![]
}
