//! The codec for metadata: a list of name and value pairs in one byte block.
//!
//! A message, request or response, is a body of bytes and such a block. HTTP maps onto it with the HTTP/2
//! pseudo-header names (`:method`, `:path`, `:status`). Pairs keep their order and may repeat.
//!
//! Encoding of a pair: `name_len: u16`, `value_len: u16` (little-endian), the name, the value. Pairs follow
//! one another without padding up to the end of the block. A block is at most [`META_BYTES_MAX`] bytes and
//! [`PAIRS_MAX`] pairs. A name is 1 to 255 bytes of the HTTP token alphabet without upper case, with an optional
//! leading colon; a value is UTF-8 without control characters other than tab. So a pair can be
//! put into an HTTP header as it is: no splitting, no smuggling.
//!
//! [`Pairs::parse`] checks a whole block before anything in it is used, so iterating cannot fail.

/// Most bytes in one metadata block.
pub const META_BYTES_MAX: usize = 32 * 1024;
/// Most pairs in one metadata block.
pub const PAIRS_MAX: usize = 128;
/// Most bytes in one name.
pub const NAME_BYTES_MAX: usize = 255;
/// The block starts at the next multiple of this behind the body.
pub const META_ALIGN: usize = 8;

const PAIR_HEADER_BYTES: usize = 4;

/// Why a block or a pair was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// The block is longer than [`META_BYTES_MAX`], or the encoder's buffer is too short.
    TooLong,
    /// More than [`PAIRS_MAX`] pairs.
    TooManyPairs,
    /// A pair runs over the end of the block.
    Truncated,
    /// A name that is empty, too long or has a character that is not allowed.
    Name,
    /// A value that is not UTF-8, has a control character or is longer than 65,535 bytes.
    Value,
}

impl core::fmt::Display for MessageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong => write!(f, "metadata is longer than {META_BYTES_MAX} bytes or than its buffer"),
            Self::TooManyPairs => write!(f, "more than {PAIRS_MAX} metadata pairs"),
            Self::Truncated => write!(f, "a metadata pair is cut short"),
            Self::Name => write!(
                f,
                "a metadata name is not 1 to {NAME_BYTES_MAX} characters of lower-case letters, digits and !#$%&'*+-.^_`|~"
            ),
            Self::Value => {
                write!(f, "a metadata value is not UTF-8 without control characters, at most 65535 bytes")
            }
        }
    }
}

impl core::error::Error for MessageError {}

/// Checks one name and value.
///
/// # Errors
/// [`MessageError::Name`] or [`MessageError::Value`].
pub fn check_pair(name: &str, value: &str) -> Result<(), MessageError> {
    if !is_name(name.as_bytes()) {
        return Err(MessageError::Name);
    }
    if value.len() > u16::MAX as usize || !value.chars().all(is_value_char) {
        return Err(MessageError::Value);
    }
    Ok(())
}

fn is_name(name: &[u8]) -> bool {
    let token = name.strip_prefix(b":").unwrap_or(name);
    !token.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && token
            .iter()
            .all(|&b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Control characters are those of ASCII and those behind them, U+0080 to U+009F, some of which terminals obey.
fn is_value_char(c: char) -> bool {
    c == '\t' || !c.is_control()
}

/// Bytes that these pairs take when encoded.
#[must_use]
pub fn encoded_len<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> usize {
    pairs.into_iter().map(|(n, v)| PAIR_HEADER_BYTES + n.len() + v.len()).sum()
}

/// Bytes that a message takes in a buffer: the body, padding where there is metadata, the metadata. `None` on overflow.
#[must_use]
pub const fn message_len(body_len: usize, meta_len: usize) -> Option<usize> {
    if meta_len == 0 {
        return Some(body_len);
    }
    match body_len.checked_next_multiple_of(META_ALIGN) {
        Some(start) => start.checked_add(meta_len),
        None => None,
    }
}

/// A checked block of pairs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pairs<'a> {
    block: &'a [u8],
}

impl<'a> Pairs<'a> {
    /// Checks a whole block.
    ///
    /// # Errors
    /// Any [`MessageError`]; nothing of a refused block can be used.
    pub fn parse(block: &'a [u8]) -> Result<Self, MessageError> {
        if block.len() > META_BYTES_MAX {
            return Err(MessageError::TooLong);
        }
        let mut rest = block;
        let mut pairs = 0;
        while !rest.is_empty() {
            pairs += 1;
            if pairs > PAIRS_MAX {
                return Err(MessageError::TooManyPairs);
            }
            let (name, value, tail) = split_pair(rest).ok_or(MessageError::Truncated)?;
            if !is_name(name) {
                return Err(MessageError::Name);
            }
            let text = core::str::from_utf8(value).map_err(|_| MessageError::Value)?;
            if !text.chars().all(is_value_char) {
                return Err(MessageError::Value);
            }
            rest = tail;
        }
        Ok(Self { block })
    }

    /// The pairs in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'a> {
        Iter { rest: self.block }
    }

    /// Value of the first pair of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// The block itself.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.block
    }
}

impl<'a> IntoIterator for &Pairs<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterator over [`Pairs`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value, tail) = split_pair(self.rest)?;
        self.rest = tail;
        Some((core::str::from_utf8(name).ok()?, core::str::from_utf8(value).ok()?))
    }
}

fn split_pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<PAIR_HEADER_BYTES>()?;
    let name_len = usize::from(u16::from_le_bytes([header[0], header[1]]));
    let value_len = usize::from(u16::from_le_bytes([header[2], header[3]]));
    let (name, rest) = rest.split_at_checked(name_len)?;
    let (value, rest) = rest.split_at_checked(value_len)?;
    Some((name, value, rest))
}

/// Writes pairs into a buffer.
#[derive(Debug)]
pub struct Encoder<'a> {
    buffer: &'a mut [u8],
    len: usize,
    pairs: usize,
}

impl<'a> Encoder<'a> {
    /// Starts an empty block in `buffer`.
    #[must_use]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0, pairs: 0 }
    }

    /// Appends one pair; on an error nothing is appended.
    ///
    /// # Errors
    /// Any [`MessageError`] but `Truncated`.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), MessageError> {
        check_pair(name, value)?;
        if self.pairs == PAIRS_MAX {
            return Err(MessageError::TooManyPairs);
        }
        let end = self.len + PAIR_HEADER_BYTES + name.len() + value.len();
        if end > META_BYTES_MAX {
            return Err(MessageError::TooLong);
        }
        let pair = self.buffer.get_mut(self.len..end).ok_or(MessageError::TooLong)?;
        let (header, rest) = pair.split_at_mut(PAIR_HEADER_BYTES);
        // `check_pair` has bounded both lengths.
        let lens = [u16::try_from(name.len()), u16::try_from(value.len())];
        for (bytes, len) in header.chunks_exact_mut(2).zip(lens) {
            bytes.copy_from_slice(&len.map_err(|_| MessageError::TooLong)?.to_le_bytes());
        }
        let (name_bytes, value_bytes) = rest.split_at_mut(name.len());
        name_bytes.copy_from_slice(name.as_bytes());
        value_bytes.copy_from_slice(value.as_bytes());
        self.len = end;
        self.pairs += 1;
        Ok(())
    }

    /// Bytes written.
    #[must_use]
    pub fn finish(self) -> usize {
        self.len
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn http_round_trip() {
        let pairs = [(":status", "200"), ("content-type", "text/plain; charset=utf-8"), ("x", "")];
        let mut buffer = [0; 256];
        let mut encoder = Encoder::new(&mut buffer);
        for (name, value) in pairs {
            encoder.push(name, value).unwrap();
        }
        let len = encoder.finish();
        assert_eq!(len, encoded_len(pairs));
        let parsed = Pairs::parse(&buffer[..len]).unwrap();
        assert!(parsed.iter().eq(pairs));
        assert_eq!(parsed.get("x"), Some(""));
        assert_eq!(parsed.get("y"), None);
    }

    #[test]
    fn what_could_split_a_header_is_refused() {
        for (name, value, error) in [
            ("", "v", MessageError::Name),
            (":", "v", MessageError::Name),
            ("Upper", "v", MessageError::Name),
            ("a:b", "v", MessageError::Name),
            ("a b", "v", MessageError::Name),
            ("n", "200\r\nset-cookie: x", MessageError::Value),
            ("n", "a\0b", MessageError::Value),
            ("n", "\u{1b}[31m", MessageError::Value),
            ("n", "\u{9b}31m", MessageError::Value),
        ] {
            assert_eq!(check_pair(name, value), Err(error), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn limits_are_exact() {
        let mut buffer = [0; META_BYTES_MAX + 64];
        let mut encoder = Encoder::new(&mut buffer);
        for _ in 0..PAIRS_MAX {
            encoder.push("n", "v").unwrap();
        }
        assert_eq!(encoder.push("n", "v"), Err(MessageError::TooManyPairs));
        let zeros = [0; META_BYTES_MAX + 1];
        assert_eq!(Pairs::parse(&zeros).err(), Some(MessageError::TooLong));
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_agrees_with_encode(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(pairs) = Pairs::parse(&bytes) {
                let mut buffer = [0; 512];
                let mut encoder = Encoder::new(&mut buffer);
                for (name, value) in &pairs {
                    encoder.push(name, value).unwrap();
                }
                let len = encoder.finish();
                prop_assert_eq!(&buffer[..len], &bytes[..]);
            }
        }
    }
}
