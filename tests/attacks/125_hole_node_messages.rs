//! attack  : 125_hole_node_messages
//! class   : hole
//! what    : Tells the node nonsense in the worker's name: what does not parse, or answers no question, without end.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "flood"
//! expect.status = OK|FAULT|DENIED|TIMEOUT|WORKER_LOST
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::system_call;

pub fn attack(input: &[u8]) -> Vec<u8> {
    let packet: &[u8] = if input == b"flood" { b"\"pong\"" } else { &[0xff; 256] };
    let part = [packet.as_ptr() as u64, packet.len() as u64];
    let message = [0, 0, part.as_ptr() as u64, 1, 0, 0, 0u64];
    let mut left = if input == b"flood" { u64::MAX } else { 100 };
    while left > 0 {
        // sendmsg to the control socket, without waiting
        system_call(46, &[3, message.as_ptr() as u64, 0x40]);
        left -= 1;
    }
    Vec::new()
}
