//! attack  : 012_cpu_drop_spin
//! class   : cpu
//! what    : Never-ending Drop on the normal return path.
//! profile : nostd   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
struct S;
impl Drop for S {
    fn drop(&mut self) {
        let mut x = 0u64;
        loop {
            x = std::hint::black_box(x + 1);
            if x == u64::MAX {
                break;
            }
        }
    }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    let _s = S;
    input.to_vec()
}
