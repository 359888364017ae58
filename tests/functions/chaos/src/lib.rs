//! Functions for the chaos suite: each answers a question that says how to check the answer, or misbehaves in one way.
//!
//! Question: `id: u64`, `nonce: u64`, `spin_us: u64`, payload, FNV-1a of all before. Answer: `id`, f(nonce), the version when the call began, the version when it
//! ended, the payload backwards, FNV-1a of all before. Numbers are little-endian.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use microfaas::{Error, Response};

/// The suite makes modules of other versions from this one by writing other digits into the file.
static VERSION: [u8; 16] = *b"version-00000000";

const HEAD_BYTES: usize = 24;
const SUM_BYTES: usize = 8;

/// Answers a question.
#[microfaas::function]
pub fn answer(body: &[u8]) -> Result<Response, Error> {
    reply(body)
}

/// As `answer`; the suite says that it is idempotent.
#[microfaas::function]
pub fn answer_again(body: &[u8]) -> Result<Response, Error> {
    reply(body)
}

/// As `answer`; the suite floods it.
#[microfaas::function]
pub fn answer_flood(body: &[u8]) -> Result<Response, Error> {
    reply(body)
}

/// Allocates for ever.
#[microfaas::function]
pub fn hoard(_: &[u8]) -> Vec<u8> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(black_box(vec![1; 64 * 1024]));
    }
}

/// Never returns.
#[microfaas::function]
pub fn spin(_: &[u8]) -> Vec<u8> {
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

/// What the wall clock says, in nanoseconds since 1970.
#[microfaas::function]
pub fn wall(_: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).to_le_bytes().to_vec()
}

/// Panics.
#[microfaas::function]
pub fn panic(_: &[u8]) -> Vec<u8> {
    panic!("as it was asked to")
}

/// Recurses until the stack is used up.
#[microfaas::function]
pub fn overflow(body: &[u8]) -> String {
    fn down(n: u64, body: &[u8]) -> u64 {
        let frame = black_box([n; 64]);
        if body.len() == usize::MAX { n } else { down(n + 1, body) + frame[1] }
    }
    down(0, body).to_string()
}

fn reply(body: &[u8]) -> Result<Response, Error> {
    let (question, sum) = body.split_at_checked(body.len().wrapping_sub(SUM_BYTES)).ok_or_else(short)?;
    let (head, payload) = question.split_at_checked(HEAD_BYTES).ok_or_else(short)?;
    if fnv1a(question) != number(sum) {
        return Err(Error::new("the question's checksum is wrong"));
    }
    let mut response = Response::in_place();
    response.extend_from_slice(&head[..8]);
    response.extend_from_slice(&f(number(&head[8..16])).to_le_bytes());
    response.extend_from_slice(black_box(&VERSION));
    let (start, spin) = (Instant::now(), Duration::from_micros(number(&head[16..24])));
    while start.elapsed() < spin {
        std::hint::spin_loop();
    }
    response.extend_from_slice(black_box(&VERSION));
    let from = response.body().len();
    response.extend_from_slice(payload);
    response.body_mut()[from..].reverse();
    let sum = fnv1a(response.body());
    response.extend_from_slice(&sum.to_le_bytes());
    Ok(response)
}

fn short() -> Error {
    Error::new("the question is cut short")
}

/// Of the first eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// What the suite works out, too: splitmix64.
#[must_use]
pub fn f(nonce: u64) -> u64 {
    let mut z = nonce.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_was_asked_for() {
        let mut question = [7u64, 9, 0].map(u64::to_le_bytes).concat();
        question.extend(b"abc");
        question.extend(fnv1a(&question).to_le_bytes());
        let answer = answer(&question).unwrap();
        let body = answer.body();
        assert_eq!((number(body), number(&body[8..])), (7, f(9)));
        assert_eq!((&body[16..32], &body[32..48], &body[48..51]), (&VERSION[..], &VERSION[..], &b"cba"[..]));
        assert_eq!(number(&body[51..]), fnv1a(&body[..51]));
        question[0] ^= 1;
        assert!(super::answer(&question).is_err());
        assert!(super::answer(b"short").is_err());
    }
}
