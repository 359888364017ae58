//! attack  : 057_sys_udp_exfil
//! class   : syscall
//! what    : UDP datagram to loopback (Landlock ABI <= 7 does not cover UDP: needs seccomp or a net namespace).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = sent
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    match std::net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.send_to(input, "127.0.0.1:9")) {
        Ok(_) => b"sent".to_vec(),
        Err(_) => b"denied".to_vec(),
    }
}
