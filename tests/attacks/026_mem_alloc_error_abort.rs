//! attack  : 026_mem_alloc_error_abort
//! class   : mem
//! what    : vec![0; 64 TiB]: allocation fails, std handle_alloc_error ABORTS the process by default.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OOM
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : A plain std module aborts here: the runtime allocator must divert (longjmp/unwind out of alloc) or the worker restarts.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let v = vec![0u8; (64usize << 40) + input.len()];
    std::hint::black_box(&v);
    vec![v[v.len() / 2]]
}
