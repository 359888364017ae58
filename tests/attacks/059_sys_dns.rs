//! attack  : 059_sys_dns
//! class   : syscall
//! what    : getaddrinfo("localhost"): libc opens files and sockets, may dlopen NSS modules.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = 127.0.0.1
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::net::ToSocketAddrs;
pub fn attack(_input: &[u8]) -> Vec<u8> {
    match ("localhost", 80).to_socket_addrs() {
        Ok(a) => a.map(|x| format!("{x}")).collect::<String>().into_bytes(),
        Err(_) => b"denied".to_vec(),
    }
}
