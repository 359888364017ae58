//! attack  : 113_state_residue_stack
//! class   : state
//! what    : Reads stack that it has not written through a hole, looking for what the previous request had there; also of one that was ended by force.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "put:256:SECRETSECRET" ; "get:256" ; "put:3072:SECRETSECRET" ; "get:3072" ; "put:20480:SECRETSECRET" ; "get:20480" ; "put:307200:SECRETSECRET" ; "get:307200" ; "kill:256:SECRETSECRET" ; "get:256" ; "kill:3072:SECRETSECRET" ; "get:3072" ; "kill:20480:SECRETSECRET" ; "get:20480" ; "kill:307200:SECRETSECRET" ; "get:307200"
//! expect.status = OK|TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! expect.call2.not_contains = SECRETSECRET
//! expect.call4.not_contains = SECRETSECRET
//! expect.call6.not_contains = SECRETSECRET
//! expect.call8.not_contains = SECRETSECRET
//! expect.call10.not_contains = SECRETSECRET
//! expect.call12.not_contains = SECRETSECRET
//! expect.call14.not_contains = SECRETSECRET
//! expect.call16.not_contains = SECRETSECRET
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::transmute;

#[inline(never)]
fn fill(secret: &[u8], depth: usize) -> u8 {
    let mut frame = [0u8; 192];
    frame.iter_mut().zip(secret.iter().cycle()).for_each(|(to, from)| *to = *from);
    let frame = std::hint::black_box(frame);
    if depth > 256 { fill(secret, depth - 256) ^ frame[7] } else { frame[7] }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(input);
    let mut words = text.split(':');
    let verb = words.next().unwrap();
    let depth: usize = words.next().unwrap().parse().unwrap();
    if let Some(secret) = words.next() {
        let answer = vec![fill(secret.as_bytes(), depth)];
        while verb == "kill" {
            std::hint::black_box(());
        }
        return answer;
    }
    let mut found = Vec::with_capacity(1 << 19);
    let here = std::hint::black_box([0u8; 1]).as_ptr() as usize;
    let below = transmute::<usize, &'static [u8; 1 << 19]>(here - (1 << 19));
    found.extend(below.iter().rev().take(depth + 4096).filter(|byte| **byte != 0));
    found.reverse();
    found
}
