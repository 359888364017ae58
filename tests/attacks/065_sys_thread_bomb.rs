//! attack  : 065_sys_thread_bomb
//! class   : syscall
//! what    : Spawns up to 2000 blocked threads.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = threads
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let mut n = 0;
    for _ in 0..2000 {
        if std::thread::Builder::new()
            .stack_size(65536)
            .spawn(|| std::thread::sleep(std::time::Duration::from_secs(3)))
            .is_ok()
        {
            n += 1
        } else {
            break;
        }
    }
    if n > 0 { format!("threads {n}").into_bytes() } else { b"denied".to_vec() }
}
