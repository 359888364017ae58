//! attack  : 029_mem_static_hoard
//! class   : mem
//! what    : Hoards memory in a static between calls.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; "" ; ""
//! expect.status = OK|OOM
//! expect.worker = same
//! expect.next_ok = true
//! expect.rss_delta = <8MiB after 1000 calls
//! expect.fd_delta = 0
//! notes   : If heap is reclaimed per request the static must be reset too (else it dangles -> UAF).
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::sync::Mutex;
static H: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut h = H.lock().unwrap_or_else(|e| e.into_inner());
    h.push(vec![input.len() as u8; 1 << 20]);
    vec![h.len() as u8]
}
