//! attack  : 042_fault_exit_zero
//! class   : fault
//! what    : std::process::exit(0): worker vanishes with a SUCCESS status; atexit handlers run.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT|DENIED
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : Supervisor must treat exit 0 during a request as a crash.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    std::process::exit(input.len() as i32 * 0)
}
