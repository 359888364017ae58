//! attack  : 080_state_timer_resolution
//! class   : state
//! what    : Measures the finest clock it can get (side-channel timer). Informational: documents what is NOT promised.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let mut best = u128::MAX;
    for _ in 0..10_000 {
        let a = std::time::Instant::now();
        let d = loop {
            let d = a.elapsed().as_nanos();
            if d > 0 {
                break d;
            }
        };
        best = best.min(d)
    }
    (best as u64).to_le_bytes().to_vec()
}
