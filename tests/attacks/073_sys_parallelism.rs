//! attack  : 073_sys_parallelism
//! class   : syscall
//! what    : Harmless-looking std call doing many syscalls: available_parallelism (sched_getaffinity, reads cgroup files), HashMap seeds (getrandom).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK|DENIED
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let n = std::thread::available_parallelism().map_or(0, |n| n.get());
    let m: std::collections::HashMap<u8, u8> = [(1, 2)].into();
    vec![n as u8, m[&1]]
}
