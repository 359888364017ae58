//! What a module says of itself, readable without loading it: an ELF note in section [`SECTION`].
//!
//! Layout of the section, little-endian: an ELF note header (`namesz`, `descsz`, `type`), the owner
//! [`OWNER`] padded to 12 bytes, then the descriptor: `abi_version: u32`, `function_count: u32`, then for each
//! function `name_len: u32` and the name, padded with zeros to a multiple of 4.

/// ELF section that holds the note.
pub const SECTION: &str = ".note.microfaas";
/// Owner field of the note.
pub const OWNER: &[u8; 10] = b"microfaas\0";
/// Type field of the note.
pub const TYPE: u32 = 1;
/// Bytes before the descriptor: header and padded owner.
pub const HEADER_BYTES: usize = 12 + 12;
/// Most functions in one module.
pub const FUNCTIONS_MAX: usize = 1024;

/// Why a manifest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestError {
    /// The note ends before what it announces.
    Truncated,
    /// Owner or type is not ours.
    NotOurs,
    /// Built for this other ABI version.
    AbiVersion(u32),
    /// More than [`FUNCTIONS_MAX`] functions, or none.
    FunctionCount(u32),
    /// A name that [`crate::is_function_name`] refuses; its place in the list.
    Name(u32),
}

impl core::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => write!(f, "manifest is cut short"),
            Self::NotOurs => write!(f, "note has another owner or type"),
            Self::AbiVersion(found) => {
                write!(
                    f,
                    "built for module ABI {found}, this runtime has {}; build it again",
                    crate::ABI_VERSION
                )
            }
            Self::FunctionCount(n) => write!(f, "{n} functions, allowed are 1 to {FUNCTIONS_MAX}"),
            Self::Name(i) => write!(f, "function {i} has an invalid name"),
        }
    }
}

impl core::error::Error for ManifestError {}

/// Bytes that [`encode`] produces for these names.
#[must_use]
pub const fn encoded_len(names: &[&str]) -> usize {
    let mut len = HEADER_BYTES + 8;
    let mut i = 0;
    while i < names.len() {
        len += 4 + names[i].len().next_multiple_of(4);
        i += 1;
    }
    len
}

/// The whole note for a module with these functions, at compile time; `N` is [`encoded_len`] of the same names.
///
/// # Panics
/// At compile time, where a name is invalid or `N` is not the encoded length.
#[must_use]
pub const fn encode<const N: usize>(names: &[&str]) -> [u8; N] {
    assert!(N == encoded_len(names), "N must be encoded_len(names)");
    assert!(!names.is_empty() && names.len() <= FUNCTIONS_MAX, "1 to 1024 functions");
    let mut out = [0; N];
    let mut at = put_u32(&mut out, 0, OWNER.len());
    at = put_u32(&mut out, at, N - HEADER_BYTES);
    at = put_u32(&mut out, at, TYPE as usize);
    put_bytes(&mut out, at, OWNER);
    at = put_u32(&mut out, HEADER_BYTES, crate::ABI_VERSION as usize);
    at = put_u32(&mut out, at, names.len());
    let mut i = 0;
    while i < names.len() {
        assert!(crate::is_function_name(names[i]), "invalid function name");
        at = put_u32(&mut out, at, names[i].len());
        put_bytes(&mut out, at, names[i].as_bytes());
        at += names[i].len().next_multiple_of(4);
        i += 1;
    }
    out
}

const fn put_u32(out: &mut [u8], at: usize, value: usize) -> usize {
    assert!(value <= u32::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "checked on the line before")]
    put_bytes(out, at, &(value as u32).to_le_bytes());
    at + 4
}

const fn put_bytes(out: &mut [u8], at: usize, bytes: &[u8]) {
    let mut i = 0;
    while i < bytes.len() {
        out[at + i] = bytes[i];
        i += 1;
    }
}

/// Checks a whole section and returns its function names in order.
///
/// # Errors
/// Any [`ManifestError`]; the ABI version is checked before the names.
pub fn decode(section: &[u8]) -> Result<impl Iterator<Item = &str> + Clone, ManifestError> {
    let owner_len = take_u32(section, 0)? as usize;
    let kind = take_u32(section, 8)?;
    let owner = section.get(12..12 + OWNER.len()).ok_or(ManifestError::Truncated)?;
    if owner_len != OWNER.len() || kind != TYPE || owner != OWNER {
        return Err(ManifestError::NotOurs);
    }
    let len = take_u32(section, 4)? as usize;
    let end = HEADER_BYTES.checked_add(len).ok_or(ManifestError::Truncated)?;
    let body = section.get(HEADER_BYTES..end).ok_or(ManifestError::Truncated)?;
    let version = take_u32(body, 0)?;
    if version != crate::ABI_VERSION {
        return Err(ManifestError::AbiVersion(version));
    }
    let count = take_u32(body, 4)?;
    if count == 0 || count as usize > FUNCTIONS_MAX {
        return Err(ManifestError::FunctionCount(count));
    }
    let names = &body[8..];
    let mut rest = names;
    for i in 0..count {
        let (name, tail) = take_name(rest)?;
        let name = core::str::from_utf8(name).map_err(|_| ManifestError::Name(i))?;
        if !crate::is_function_name(name) {
            return Err(ManifestError::Name(i));
        }
        rest = tail;
    }
    let mut rest = names;
    Ok((0..count).filter_map(move |_| {
        let (name, tail) = take_name(rest).ok()?;
        rest = tail;
        core::str::from_utf8(name).ok()
    }))
}

fn take_u32(bytes: &[u8], at: usize) -> Result<u32, ManifestError> {
    let word = bytes.get(at..at + 4).and_then(|w| w.try_into().ok()).ok_or(ManifestError::Truncated)?;
    Ok(u32::from_le_bytes(word))
}

fn take_name(bytes: &[u8]) -> Result<(&[u8], &[u8]), ManifestError> {
    let len = take_u32(bytes, 0)? as usize;
    let padded = len.checked_next_multiple_of(4).ok_or(ManifestError::Truncated)?;
    let rest = &bytes[4..];
    if padded > rest.len() {
        return Err(ManifestError::Truncated);
    }
    Ok((&rest[..len], &rest[padded..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["hello", "jwt-verify", "a"];
    const NOTE: [u8; encoded_len(NAMES)] = encode(NAMES);

    #[test]
    fn round_trip() {
        let names = decode(&NOTE).unwrap();
        assert!(names.eq(NAMES.iter().copied()));
    }

    #[test]
    fn every_truncation_is_refused() {
        for len in 0..NOTE.len() {
            assert!(decode(&NOTE[..len]).is_err(), "{len} bytes of {} were taken", NOTE.len());
        }
    }

    #[test]
    fn another_abi_version_is_named() {
        let mut note = NOTE;
        note[HEADER_BYTES] = 99;
        assert_eq!(decode(&note).err(), Some(ManifestError::AbiVersion(99)));
    }
}
