//! attack  : 066_sys_fd_leak
//! class   : syscall
//! what    : Opens /dev/null until EMFILE and leaks the descriptors.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
//! expect.not_contains = leaked
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::os::fd::IntoRawFd;
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let mut n = 0;
    while n < 100_000 {
        match std::fs::File::open("/dev/null") {
            Ok(f) => {
                f.into_raw_fd();
                n += 1
            }
            Err(_) => break,
        }
    }
    if n > 0 { format!("leaked {n}").into_bytes() } else { b"denied".to_vec() }
}
