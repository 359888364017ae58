//! attack  : 061_sys_exec_replace
//! class   : syscall
//! what    : Replaces the worker process image: CommandExt::exec("/bin/true") - worker exits 0 with inherited fds.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|FAULT|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::os::unix::process::CommandExt;
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let e = std::process::Command::new("/bin/true").exec();
    format!("ERR {e}").into_bytes()
}
