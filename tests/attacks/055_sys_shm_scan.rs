//! attack  : 055_sys_shm_scan
//! class   : syscall
//! what    : Opens every file of /dev/shm read-write and scribbles on it (named shm rings of other workers).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = opened
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::io::Write;
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let mut n = 0;
    if let Ok(d) = std::fs::read_dir("/dev/shm") {
        for e in d.flatten() {
            if e.file_name().to_string_lossy().contains("microfaas") {
                if let Ok(mut f) = std::fs::OpenOptions::new().write(true).open(e.path()) {
                    n += 1;
                    let _ = f.write_all(&[0xFF; 4096]);
                }
            }
        }
    }
    if n > 0 { format!("opened {n}").into_bytes() } else { b"none".to_vec() }
}
