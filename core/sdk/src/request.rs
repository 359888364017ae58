//! A request as a function sees it.

use core::cell::OnceCell;
use core::fmt;
use core::time::Duration;
use std::borrow::Cow;

use microfaas_abi::CALL_RETRIED;
use microfaas_lane::message::{Encoder, Pairs, encoded_len};

use crate::glue::runtime;

/// One call's request: a body and metadata, borrowed from where the host wrote them.
///
/// Metadata is a list of name and value pairs, in order, names in lower case. A request that came over HTTP
/// has its headers there and, under HTTP/2's names, its `:method`, `:path` and `:authority`.
pub struct Request<'a> {
    body: &'a [u8],
    meta: Meta<'a>,
    deadline_ns: u64,
    flags: u64,
}

enum Meta<'a> {
    /// As it came, checked at the first look: a function that does not look does not pay.
    Borrowed(&'a [u8], OnceCell<Pairs<'a>>),
    /// Made by [`Request::with_meta`].
    Owned(Vec<u8>),
}

impl<'a> Request<'a> {
    /// A request without metadata, for tests.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { body, meta: Meta::Owned(Vec::new()), deadline_ns: u64::MAX, flags: 0 }
    }

    pub(crate) fn from_parts(body: &'a [u8], meta: &'a [u8], deadline_ns: u64, flags: u64) -> Self {
        Self { body, meta: Meta::Borrowed(meta, OnceCell::new()), deadline_ns, flags }
    }

    /// The same request with these pairs after those it has, for tests.
    ///
    /// # Panics
    /// Where a pair could not be sent: see [`MessageError`](crate::MessageError).
    #[must_use]
    pub fn with_meta(self, pairs: &[(&str, &str)]) -> Self {
        let all = || self.metas().chain(pairs.iter().copied());
        let mut block = vec![0; encoded_len(all())];
        let mut encoder = Encoder::new(&mut block);
        for (name, value) in all() {
            if let Err(error) = encoder.push(name, value) {
                panic!("{name:?} = {value:?}: {error}");
            }
        }
        Self { meta: Meta::Owned(block), ..self }
    }

    /// The body, where the host wrote it.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Value of the first pair of this name, which is in lower case.
    ///
    /// # Cost
    /// A search from the front; the first look checks the whole block.
    #[must_use]
    pub fn meta(&self, name: &str) -> Option<&str> {
        self.pairs().get(name)
    }

    /// All pairs in order, pseudo-headers included.
    pub fn metas(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.pairs().iter()
    }

    /// Value of the first header of this name, in any case; never a pseudo-header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        if name.starts_with(':') {
            return None;
        }
        self.metas().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The HTTP method, where the request came over HTTP.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.meta(":method")
    }

    /// The path of the HTTP target, without its query, not decoded.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        let target = self.meta(":path")?;
        Some(target.split_once('?').map_or(target, |(path, _)| path))
    }

    /// The query of the HTTP target: what follows the first `?`, not decoded.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.meta(":path")?.split_once('?').map(|(_, query)| query)
    }

    /// The first query parameter of this name, with `+` and `%xx` decoded; bytes that are then not UTF-8 become `U+FFFD`.
    #[must_use]
    pub fn query_param(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query()?
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(key, _)| decode(key) == name)
            .map(|(_, value)| decode(value))
    }

    /// When the caller stops caring, in nanoseconds of `CLOCK_MONOTONIC`; `None` for never.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        (self.deadline_ns != u64::MAX).then_some(self.deadline_ns)
    }

    /// Time until the deadline, zero once it has passed; `None` where there is no deadline.
    ///
    /// A [safe point](crate::checkpoint): what asks for it in a loop may go on until then.
    ///
    /// # Cost
    /// One read of the clock, without a system call.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        runtime::checkpoint();
        let deadline_ns = self.deadline_ns()?;
        Some(Duration::from_nanos(deadline_ns.saturating_sub(runtime::monotonic_ns())))
    }

    /// Whether an earlier attempt at this call may have run: only for functions declared idempotent.
    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.flags & CALL_RETRIED != 0
    }

    fn pairs(&self) -> Pairs<'_> {
        match &self.meta {
            // The node has checked the block; one that is broken nonetheless reads as empty.
            Meta::Borrowed(block, pairs) => *pairs.get_or_init(|| Pairs::parse(block).unwrap_or_default()),
            Meta::Owned(block) => Pairs::parse(block).unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("body_len", &self.body.len())
            .field("metas", &self.metas().collect::<Vec<_>>())
            .field("deadline_ns", &self.deadline_ns())
            .field("is_retry", &self.is_retry())
            .finish()
    }
}

/// Decodes a component of a query; a `%` that no two hexadecimal digits follow stands for itself.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = match bytes[at] {
            b'%' => bytes.get(at + 1..at + 3).and_then(hex_byte),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let value = digits.iter().try_fold(0, |value, &b| Some(value * 16 + digit(b)?))?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_split_at_the_first_question_mark() {
        let request =
            Request::new(b"").with_meta(&[(":method", "GET"), (":path", "/fn/a?x=1?2&name=J%C3%BCrgen+M%2")]);
        assert_eq!(request.method(), Some("GET"));
        assert_eq!(request.path(), Some("/fn/a"));
        assert_eq!(request.query(), Some("x=1?2&name=J%C3%BCrgen+M%2"));
        assert_eq!(request.query_param("name").as_deref(), Some("Jürgen M%2"));
        assert_eq!(request.query_param("x").as_deref(), Some("1?2"));
        assert_eq!(request.query_param("y"), None);
    }

    #[test]
    fn headers_match_in_any_case_and_hide_pseudo_headers() {
        let request =
            Request::new(b"").with_meta(&[(":path", "/")]).with_meta(&[("x-a", "first"), ("x-a", "second")]);
        assert_eq!(request.header("X-A"), Some("first"));
        assert_eq!(request.header(":path"), None);
        assert_eq!(request.metas().count(), 3);
        assert_eq!(request.query(), None);
    }

    #[test]
    fn a_broken_block_reads_as_empty() {
        let request = Request::from_parts(b"body", &[9, 0, 0, 0, 1], u64::MAX, CALL_RETRIED);
        assert_eq!(request.metas().count(), 0);
        assert_eq!(request.body(), b"body");
        assert!(request.is_retry());
        assert_eq!(request.time_left(), None);
    }

    #[test]
    fn a_deadline_in_the_past_leaves_no_time() {
        let request = Request::from_parts(b"", b"", 1, 0);
        assert_eq!(request.time_left(), Some(Duration::ZERO));
    }

    #[test]
    #[should_panic(expected = "metadata name")]
    fn upper_case_names_are_refused() {
        let _ = Request::new(b"").with_meta(&[("X-A", "v")]);
    }
}
