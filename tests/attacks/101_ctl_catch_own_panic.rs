//! attack  : 101_ctl_catch_own_panic
//! class   : control
//! what    : CONTROL: a function that legitimately catches its own panic.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.equals = caught
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    match std::panic::catch_unwind(|| {
        if input.len() < usize::MAX {
            panic!("mine")
        }
    }) {
        Err(_) => b"caught".to_vec(),
        Ok(()) => vec![],
    }
}
