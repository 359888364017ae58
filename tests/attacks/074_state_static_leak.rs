//! attack  : 074_state_static_leak
//! class   : state
//! what    : Tenant A stores a secret in a static; tenant B (same module) reads it.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "put:SECRET" ; "get"
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.call2.not_contains = SECRET
//! expect.fd_delta = 0
//! notes   : If statics persist by design, document it and mark the function "stateful" (opt-in).
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::sync::{Mutex, OnceLock};
static S: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static O: OnceLock<Vec<u8>> = OnceLock::new();
pub fn attack(input: &[u8]) -> Vec<u8> {
    if let Some(s) = input.strip_prefix(b"put:") {
        *S.lock().unwrap_or_else(|e| e.into_inner()) = s.to_vec();
        let _ = O.set(s.to_vec());
        return b"stored".to_vec();
    }
    let mut v = S.lock().unwrap_or_else(|e| e.into_inner()).clone();
    v.extend(O.get().cloned().unwrap_or_default());
    v
}
