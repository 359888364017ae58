//! attack  : 003_cpu_alloc_large_loop
//! class   : cpu
//! what    : Alternating 1 MiB and 64 MiB allocations: preemption lands in mmap/munmap/mremap paths.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut n = input.len();
    loop {
        let mut v = vec![1u8; (1 << 20) << (n % 7)];
        v.resize(v.len() * 2, 7);
        n = n.wrapping_add(std::hint::black_box(v)[4097] as usize);
        if n == usize::MAX {
            break;
        }
    }
    vec![]
}
