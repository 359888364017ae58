//! attack  : 033_mem_response_oversized
//! class   : mem
//! what    : Returns 1 GiB (budget permitting) / limit+1 bytes.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TOO_LARGE|OOM
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : Sweep n over {0,1,slot-1,slot,slot+1,ring_size,2*ring_size,1<<30}: exact bytes or TOO_LARGE; never truncated silently; never blocks the ring.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let n = input.get(..8).map_or(1 << 30, |b| u64::from_le_bytes(b.try_into().unwrap()) as usize);
    vec![0x5A; n]
}
