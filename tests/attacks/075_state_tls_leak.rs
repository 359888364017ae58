//! attack  : 075_state_tls_leak
//! class   : state
//! what    : Same through thread_local.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "put:SECRET" ; "get"
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.call2.not_contains = SECRET
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::cell::RefCell;
thread_local! { static S: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) } }
pub fn attack(input: &[u8]) -> Vec<u8> {
    if let Some(s) = input.strip_prefix(b"put:") {
        S.with(|c| *c.borrow_mut() = s.to_vec());
        return b"stored".to_vec();
    }
    S.with(|c| c.borrow().clone())
}
