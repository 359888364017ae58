//! attack  : 024_mem_vec_grow
//! class   : mem
//! what    : Grows a vector until the budget is gone.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OOM
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : TIMEOUT acceptable if the quantum fires first; RSS must return to baseline.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut v: Vec<Vec<u8>> = vec![];
    loop {
        v.push(vec![input.len() as u8 | 1; 1 << 20]);
        std::hint::black_box(&v);
    }
}
