//! attack  : 018_cpu_park
//! class   : cpu
//! what    : Blocks forever: thread::park / channel recv (futex wait).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; "chan"
//! expect.status = TIMEOUT|DENIED
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    if input == b"chan" {
        let (tx, rx) = std::sync::mpsc::channel::<u8>();
        let r = rx.recv();
        drop(tx);
        return vec![r.is_ok() as u8];
    }
    loop {
        std::thread::park()
    }
}
