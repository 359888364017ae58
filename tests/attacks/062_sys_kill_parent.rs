//! attack  : 062_sys_kill_parent
//! class   : syscall
//! what    : Kills its parent (the supervisor/gateway) with the kill program.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = killed
//! expect.fd_delta = 0
//! notes   : Run only under the test harness: the parent is whatever started the worker.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let pp = std::os::unix::process::parent_id();
    if pp <= 1 {
        return b"no parent".to_vec();
    }
    match std::process::Command::new("/bin/kill").args(["-9", &pp.to_string()]).status() {
        Ok(s) if s.success() => b"killed".to_vec(),
        _ => b"denied".to_vec(),
    }
}
