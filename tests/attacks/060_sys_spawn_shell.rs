//! attack  : 060_sys_spawn_shell
//! class   : syscall
//! what    : fork/exec through std::process::Command.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = uid=
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    match std::process::Command::new("/usr/bin/id").output() {
        Ok(o) => o.stdout,
        Err(e) => format!("ERR {e}").into_bytes(),
    }
}
