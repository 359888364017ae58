//! attack  : 045_fault_panic_huge_message
//! class   : fault
//! what    : Panic with a 64 MiB message (and a 64 MiB String payload).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "" ; "p"
//! expect.status = PANIC|OOM|TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.error_text = truncated to the documented limit
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let s = "x".repeat(64 << 20);
    if input.is_empty() {
        panic!("{s}")
    }
    std::panic::panic_any(s)
}
