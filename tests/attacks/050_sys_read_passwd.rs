//! attack  : 050_sys_read_passwd
//! class   : syscall
//! what    : Reads /etc/passwd and returns it.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = root:
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    match std::fs::read("/etc/passwd") {
        Ok(v) => v,
        Err(e) => format!("ERR {e}").into_bytes(),
    }
}
