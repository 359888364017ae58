//! attack  : 118_cpu_catch_safe_points
//! class   : cpu
//! what    : Catches its end at a safe point, again and again, and in a destructor that is run for it.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

pub fn attack(_input: &[u8]) -> Vec<u8> {
    struct Endless;
    impl Drop for Endless {
        fn drop(&mut self) {
            loop {
                microfaas::checkpoint();
            }
        }
    }
    for _ in 0..100 {
        let _ = std::panic::catch_unwind(|| {
            loop {
                microfaas::checkpoint();
            }
        });
    }
    let _endless = Endless;
    loop {
        microfaas::checkpoint();
    }
}
