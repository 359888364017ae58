//! attack  : 068_sys_stdout_flood
//! class   : syscall
//! what    : Floods stdout with 256 MiB (blocks on a full pipe; fills logs).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK|DENIED|TIMEOUT
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.log_bytes = <64KiB per request
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let l = "A".repeat(4096);
    for _ in 0..65536 {
        println!("{l}")
    }
    b"done".to_vec()
}
