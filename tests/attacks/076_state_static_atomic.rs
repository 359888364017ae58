//! attack  : 076_state_static_atomic
//! class   : state
//! what    : no_std-compatible static state: an AtomicU64 survives between requests.
//! profile : nostd   (smallest guest profile in which this compiles)
//! calls   : "x" ; ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.call2.equals_zero = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use core::sync::atomic::{AtomicU64, Ordering};
static A: AtomicU64 = AtomicU64::new(0);
pub fn attack(input: &[u8]) -> Vec<u8> {
    let old = A.swap(if input.is_empty() { 0 } else { 0x5EC2E7 }, Ordering::SeqCst);
    old.to_le_bytes().to_vec()
}
