//! attack  : 064_sys_thread_outlives
//! class   : syscall
//! what    : Spawns a thread that keeps burning CPU and touching memory after the request returned (UAF after module unload / heap reclaim).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = thread-ok
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let v = input.to_vec();
    match std::thread::Builder::new().spawn(move || {
        let mut v = v;
        let t = std::time::Instant::now();
        while t.elapsed().as_secs() < 5 {
            v.push(1);
            if v.len() > 1000 {
                v.clear()
            }
        }
    }) {
        Ok(_) => b"thread-ok".to_vec(),
        Err(_) => b"denied".to_vec(),
    }
}
