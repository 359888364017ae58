//! attack  : 044_fault_panic_in_drop
//! class   : fault
//! what    : Panic in Drop on the normal return path, with a result already built.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = PANIC
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
struct S;
impl Drop for S {
    fn drop(&mut self) {
        panic!("in drop")
    }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    let _s = S;
    input.to_vec()
}
