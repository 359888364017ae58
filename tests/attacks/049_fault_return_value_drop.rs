//! attack  : 049_fault_return_value_drop
//! class   : fault
//! what    : Nothing wrong in the call; the leaked thread-local destructor + atexit style state fires later (Vec returned with huge spare capacity).
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : Response buffer freed in the right heap; 8 MiB spare capacity does not leak (1000 calls).
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut v = Vec::with_capacity(8 << 20);
    v.extend_from_slice(input);
    v
}
