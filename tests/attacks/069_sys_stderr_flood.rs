//! attack  : 069_sys_stderr_flood
//! class   : syscall
//! what    : Floods stderr, with terminal escape sequences.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK|DENIED|PANIC|TIMEOUT
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.log_bytes = <64KiB per request
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let l = "\x1b]0;owned\x07\x1b[2J".repeat(256);
    for _ in 0..65536 {
        eprintln!("{l}")
    }
    b"done".to_vec()
}
