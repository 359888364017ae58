//! attack  : 117_mem_resize_storm
//! class   : mem
//! what    : Vectors grow and shrink by turns to sizes that never come again, a twentieth of the memory at most at a time.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

pub fn attack(_input: &[u8]) -> Vec<u8> {
    let mut vectors: Vec<Vec<u8>> = vec![Vec::new(); 64];
    let mut n = 1usize;
    loop {
        n = n.wrapping_mul(6364136223846793005).wrapping_add(1);
        let vector = &mut vectors[n >> 58];
        vector.resize((n >> 30) % 200_000, 1);
        vector.shrink_to_fit();
    }
}
