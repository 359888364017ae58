//! attack  : 002_cpu_alloc_small_loop
//! class   : cpu
//! what    : Malloc/free of small random sizes forever: preemption lands inside the allocator (lock / free-list half updated).
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : Run >= 10_000 times with quantum in 20..200 us: every run must leave the allocator usable.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut s = 0x9E3779B97F4A7C15u64 ^ input.len() as u64;
    let mut keep: Vec<Vec<u8>> = (0..64).map(|_| Vec::new()).collect();
    loop {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        keep[(s % 64) as usize] = vec![s as u8; (s >> 8) as usize % 2000 + 1];
        if s == 42 {
            break;
        }
    }
    keep.concat()
}
