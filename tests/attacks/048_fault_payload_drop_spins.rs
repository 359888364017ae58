//! attack  : 048_fault_payload_drop_spins
//! class   : fault
//! what    : Panic payload whose Drop never ends: host that drops it after disarming the timer hangs.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = PANIC|TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        loop {
            std::hint::black_box(0u8);
        }
    }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    if input.len() < usize::MAX {
        std::panic::panic_any(Bomb)
    }
    vec![]
}
