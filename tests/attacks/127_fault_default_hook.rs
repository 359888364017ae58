//! attack  : 127_fault_default_hook
//! class   : fault
//! what    : Panics with the standard library's own hook, which writes to standard error; and prints while a panic is under way.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "hook" ; "drop"
//! expect.status = PANIC
//! expect.worker = same
//! expect.detail = once
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

struct Talks;
impl Drop for Talks {
    fn drop(&mut self) {
        eprintln!("dropped");
    }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    let _talks = (input == b"drop").then(|| Talks);
    if input == b"hook" {
        let _ = std::panic::take_hook();
    }
    panic!("once");
}
