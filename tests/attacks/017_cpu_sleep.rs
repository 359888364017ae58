//! attack  : 017_cpu_sleep
//! class   : cpu
//! what    : Blocks in thread::sleep for an hour (clock_nanosleep).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT|DENIED
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    std::thread::sleep(std::time::Duration::from_secs(3600 + input.len() as u64));
    vec![]
}
