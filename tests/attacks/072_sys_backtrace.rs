//! attack  : 072_sys_backtrace
//! class   : syscall
//! what    : Backtrace::force_capture: opens /proc/self/exe and debug files, mmaps, takes locks.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK|DENIED
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let b = std::backtrace::Backtrace::force_capture();
    let mut s = b.to_string();
    s.truncate(200);
    s.into_bytes()
}
