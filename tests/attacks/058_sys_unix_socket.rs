//! attack  : 058_sys_unix_socket
//! class   : syscall
//! what    : AF_UNIX socketpair / abstract socket connect.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = pair-ok
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    match std::os::unix::net::UnixStream::pair() {
        Ok(_) => b"pair-ok".to_vec(),
        Err(_) => b"denied".to_vec(),
    }
}
