//! attack  : 027_mem_touch_lazily
//! class   : mem
//! what    : Reserves 16 GiB zeroed (lazy) then touches every page: overcommit / cgroup OOM killer.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OOM|TIMEOUT
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut v = vec![0u8; 16 << 30];
    let mut i = input.len();
    while i < v.len() {
        v[i] = 1;
        i += 4096
    }
    vec![v[4096]]
}
