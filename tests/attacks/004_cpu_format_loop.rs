//! attack  : 004_cpu_format_loop
//! class   : cpu
//! what    : String formatting forever (alloc + fmt machinery).
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut i = 0u64;
    let mut out = String::new();
    loop {
        out.clear();
        for _ in 0..10 {
            out += &format!("{i:>20}|{:e}|{:?}", i as f64 / 3.0, input);
            i += 1
        }
        if i == u64::MAX {
            break;
        }
    }
    out.into_bytes()
}
