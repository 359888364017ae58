//! attack  : 056_sys_tcp_connect
//! class   : syscall
//! what    : TCP connect and listen on loopback.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = socket-ok
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let a = std::net::TcpListener::bind("127.0.0.1:0");
    let b = std::net::TcpStream::connect_timeout(
        &"127.0.0.1:9".parse().unwrap(),
        std::time::Duration::from_millis(5),
    );
    if a.is_ok() || b.is_ok() { b"socket-ok".to_vec() } else { b"denied".to_vec() }
}
