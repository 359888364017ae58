//! attack  : 006_cpu_hashmap_grow_loop
//! class   : cpu
//! what    : HashMap insert/clear forever: RandomState (getrandom syscall, thread-local keys), rehash moves.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::collections::HashMap;
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut m: HashMap<u64, String> = HashMap::new();
    let mut i = input.len() as u64;
    loop {
        m.insert(i, i.to_string());
        i += 1;
        if m.len() > 4000 {
            m = HashMap::new()
        }
        if i == u64::MAX {
            break;
        }
    }
    vec![]
}
