//! attack  : 051_sys_proc_self_mem
//! class   : syscall
//! what    : Arbitrary memory write with 100% safe std: opens /proc/self/mem rw and overwrites its own rodata (bypasses page protection).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = PWNED
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::io::{Seek, SeekFrom, Write};
static X: [u8; 16] = *b"AAAAAAAAAAAAAAAA";
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let r = (|| {
        let mut f = std::fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem")?;
        f.seek(SeekFrom::Start(std::hint::black_box(&X).as_ptr() as u64))?;
        f.write_all(b"PWNED")
    })();
    match r {
        Ok(()) => std::hint::black_box(&X).to_vec(),
        Err(e) => format!("ERR {e}").into_bytes(),
    }
}
