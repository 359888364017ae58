//! attack  : 126_fault_last_words
//! class   : fault
//! what    : Panics where nothing may unwind, or while a panic is told of: the standard library says so on standard error, and aborts. It is the abort that the caller is told of.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "twice" ; "caught" ; "callback" ; "text" ; "hook"
//! expect.status = FAULT
//! expect.worker = same
//! expect.detail = abort (SIGABRT)
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use std::fmt;
use std::panic::{catch_unwind, set_hook};

struct Again;
impl Drop for Again {
    fn drop(&mut self) {
        panic!("again");
    }
}
struct Unspeakable;
impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in the text of a panic");
    }
}
extern "C" fn callback() {
    panic!("in a callback");
}
fn twice() {
    let _again = Again;
    panic!("once");
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    match input {
        b"twice" => twice(),
        b"caught" => while catch_unwind(twice).is_err() {},
        b"callback" => callback(),
        b"text" => panic!("{Unspeakable}"),
        _ => {
            set_hook(Box::new(|_| panic!("in a hook")));
            panic!("once");
        }
    }
    Vec::new()
}
