//! attack  : 120_fault_panic_at_stack_end
//! class   : fault
//! what    : Panics with less and less of the stack left, until there is too little for unwinding.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

#[inline(never)]
fn down(depth: u64, end: u64) -> u64 {
    let frame = std::hint::black_box([depth; 8]);
    if depth == end {
        panic!("deep down");
    }
    down(depth + 1, end) + frame[3]
}
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let mut end = 1000;
    while std::panic::catch_unwind(|| down(0, end)).is_err() {
        end += 500;
    }
    Vec::new()
}
