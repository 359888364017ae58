//! SHA-512, the function that the paper measures with, and a long-running form of it.
#![forbid(unsafe_code)]

use microfaas::{Error, checkpoint};
use sha2::{Digest, Sha512};

/// The SHA-512 digest of the body, as 128 hexadecimal digits.
#[microfaas::function]
pub fn sha512(body: &[u8]) -> Vec<u8> {
    hex(&Sha512::digest(body))
}

/// As many hashes as the body says, each of the digest before, the first of nothing: about a microsecond each.
#[microfaas::function(name = "sha512-loop")]
pub fn sha512_loop(body: &[u8]) -> Result<Vec<u8>, Error> {
    let rounds = str::from_utf8(body).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let rounds = rounds.ok_or_else(|| Error::new("the body is not a number of rounds").with_status(400))?;
    let mut digest = Sha512::digest(b"");
    for _ in 1..rounds.max(1) {
        checkpoint();
        digest = Sha512::digest(digest);
    }
    Ok(hex(&digest))
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From FIPS 180-2, appendix C.1.
    const ABC: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    const NOTHING: &str = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                           47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    #[test]
    fn known_digests() {
        assert_eq!(sha512(b"abc"), ABC.as_bytes());
        assert_eq!(sha512(b""), NOTHING.as_bytes());
    }

    #[test]
    fn rounds_chain() {
        assert_eq!(sha512_loop(b"1").unwrap(), NOTHING.as_bytes());
        let raw: Vec<u8> = Sha512::digest(Sha512::digest(b"")).to_vec();
        assert_eq!(sha512_loop(b"2\n").unwrap(), hex(&raw));
        assert_eq!(sha512_loop(b"many").unwrap_err().status(), Some(400));
    }
}
