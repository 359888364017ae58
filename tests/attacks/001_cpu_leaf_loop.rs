//! attack  : 001_cpu_leaf_loop
//! class   : cpu
//! what    : Tight leaf loop: no calls, no allocation, no safepoints.
//! profile : nostd   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut x = input.len() as u64 | 1;
    loop {
        x = std::hint::black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1));
        if x == 0 && input.len() > 1 << 40 {
            break;
        }
    }
    x.to_le_bytes().to_vec()
}
