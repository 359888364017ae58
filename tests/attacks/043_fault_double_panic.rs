//! attack  : 043_fault_double_panic
//! class   : fault
//! what    : Panic in Drop while unwinding: std aborts the process.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT|PANIC|DENIED
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
struct S;
impl Drop for S {
    fn drop(&mut self) {
        if std::thread::panicking() {
            panic!("second")
        }
    }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    let _s = S;
    if input.len() < usize::MAX {
        panic!("first")
    }
    vec![]
}
