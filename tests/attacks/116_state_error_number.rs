//! attack  : 116_state_error_number
//! class   : state
//! what    : Leaves an error number behind, which safe code sets by mathematics and reads from the standard library.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "put" ; "get" ; "put" ; "get"
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.call2.equals_zero = true
//! expect.call4.equals_zero = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use std::hint::black_box;

pub fn attack(input: &[u8]) -> Vec<u8> {
    if input == b"get" {
        return std::io::Error::last_os_error().raw_os_error().unwrap_or(0).to_le_bytes().into();
    }
    black_box(black_box(-1.0f64).ln());
    black_box(black_box(1e300f64).powf(1e10));
    Vec::new()
}
