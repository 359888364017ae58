//! attack  : 052_sys_proc_recon
//! class   : syscall
//! what    : Reads /proc/self/{maps,environ,cmdline,status}, lists /proc and /proc/self/fd.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = .so
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let mut o = vec![];
    for f in ["maps", "environ", "cmdline", "status"] {
        if let Ok(mut v) = std::fs::read(format!("/proc/self/{f}")) {
            o.append(&mut v)
        }
    }
    for d in ["/proc", "/proc/self/fd", "/proc/self/task"] {
        if let Ok(r) = std::fs::read_dir(d) {
            o.extend(format!("{d}:{}\n", r.count()).bytes())
        }
    }
    o
}
