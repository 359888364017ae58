//! A shared library for programs that are not of Rust: starts a node and calls one function. For `tests/foreign.rs`, which loads it from C and from Python
//! to see that the worker is found from there without configuration.
#![expect(unsafe_code, reason = "an entry for C")]

use std::ffi::{CStr, c_char, c_int};
use std::panic::catch_unwind;

use microfaas_node::Node;

/// Calls `echo` of the module `file` with a body. 0 where the body comes back, 1 where not (with a line on standard error), 2 on a panic.
///
/// # Safety
/// `file` is a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foreign_echo(file: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let file = unsafe { CStr::from_ptr(file) };
    let echo = || -> Result<bool, String> {
        let file = file.to_str().map_err(|e| e.to_string())?;
        let node = Node::builder().module(file).workers(1).start().map_err(|e| e.to_string())?;
        let answer = node.invoke("echo", b"over the border".as_slice()).map_err(|e| e.to_string())?;
        Ok(answer.body == b"over the border")
    };
    match catch_unwind(echo) {
        Ok(Ok(true)) => 0,
        Ok(Ok(false)) => 1,
        Ok(Err(error)) => {
            eprintln!("{error}");
            1
        }
        Err(_) => 2,
    }
}
