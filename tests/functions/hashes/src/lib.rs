//! Work for benchmarks of preemption: SHA-512 of 64 bytes, over and over. One function under several names, so that a node can give it
//! several limits while the code that runs is the same to the byte.
//!
//! Body: how many hashes, 4 bytes little-endian ([`u32::MAX`]: without end), then the 64 bytes to begin with. The answer is the last hash;
//! each is of the one before.
#![forbid(unsafe_code)]

use std::convert::Infallible;

use microfaas::{Error, Response};
use sha2::{Digest, Sha512};

/// Proof that `init` has run: the crate has asked the processor what it can, which takes an exit of the virtual machine, and remembers.
#[derive(Debug)]
pub struct Ready;

/// The `init` of all of them.
pub fn prepare() -> Result<Ready, Infallible> {
    hash(1, [0; 64]);
    Ok(Ready)
}

#[inline(never)]
fn hash(count: u32, mut text: [u8; 64]) -> [u8; 64] {
    let mut left = count;
    while left > 0 {
        text = Sha512::digest(text).into();
        if count < u32::MAX {
            left -= 1;
        }
    }
    text
}

fn answer(body: &[u8]) -> Result<Response, Error> {
    let (count, text) = body.split_first_chunk().ok_or_else(|| Error::new("no count"))?;
    let text = <[u8; 64]>::try_from(text).map_err(|_| Error::new("not 64 bytes after the count"))?;
    let mut response = Response::in_place();
    response.extend_from_slice(&hash(u32::from_le_bytes(*count), text));
    Ok(response)
}

/// See the module.
#[microfaas::function(init = prepare)]
pub fn hash_0(_: &Ready, body: &[u8]) -> Result<Response, Error> {
    answer(body)
}

/// See the module.
#[microfaas::function(init = prepare)]
pub fn hash_1(_: &Ready, body: &[u8]) -> Result<Response, Error> {
    answer(body)
}

/// See the module.
#[microfaas::function(init = prepare)]
pub fn hash_2(_: &Ready, body: &[u8]) -> Result<Response, Error> {
    answer(body)
}

/// See the module.
#[microfaas::function(init = prepare)]
pub fn hash_3(_: &Ready, body: &[u8]) -> Result<Response, Error> {
    answer(body)
}

/// See the module.
#[microfaas::function(init = prepare)]
pub fn hash_4(_: &Ready, body: &[u8]) -> Result<Response, Error> {
    answer(body)
}

/// See the module.
#[microfaas::function(init = prepare)]
pub fn hash_5(_: &Ready, body: &[u8]) -> Result<Response, Error> {
    answer(body)
}

/// See the module.
#[microfaas::function(init = prepare)]
pub fn hash_6(_: &Ready, body: &[u8]) -> Result<Response, Error> {
    answer(body)
}

/// See the module.
#[microfaas::function(init = prepare)]
pub fn hash_7(_: &Ready, body: &[u8]) -> Result<Response, Error> {
    answer(body)
}

/// See the module.
#[microfaas::function(init = prepare)]
pub fn hash_8(_: &Ready, body: &[u8]) -> Result<Response, Error> {
    answer(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        let first: [u8; 64] = Sha512::digest([0; 64]).into();
        assert_eq!(hash(1, [0; 64]), first);
        assert_eq!(hash(3, [0; 64]), hash(2, first));
        let body = [2u32.to_le_bytes().as_slice(), &[0; 64]].concat();
        assert_eq!(answer(&body).unwrap().body(), hash(1, first));
        assert!(answer(b"12").is_err() && answer(&[0; 70]).is_err());
    }
}
