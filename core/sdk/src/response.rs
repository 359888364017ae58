//! A response as a function builds it.

use core::fmt;
use std::io;

use microfaas_lane::message::{Encoder, META_BYTES_MAX, MessageError, PAIRS_MAX, Pairs, encoded_len};

use crate::checkpoint;
use crate::glue::out::InPlace;

/// A body and metadata, optionally with an HTTP status.
///
/// The body is either bytes that are copied once into the call's slot when the function returns, or is
/// written there from the start: [`Response::in_place`].
pub struct Response {
    status: Option<u16>,
    /// Encoded pairs but the status.
    meta: Vec<u8>,
    pairs: usize,
    body: Body,
}

pub(crate) enum Body {
    Vec(Vec<u8>),
    Static(&'static [u8]),
    InPlace(InPlace),
}

/// The status is written as the pair `:status`, three digits.
const STATUS_PAIR_BYTES: usize = 4 + ":status".len() + 3;

impl Response {
    /// A response with this body: `Vec<u8>`, `String`, `&'static str`, `&'static [u8]` or anything else that is
    /// `Into<Vec<u8>>`.
    ///
    /// # Cost
    /// A `Vec` or `String` is copied once when the function returns, text that is `'static` as well.
    #[must_use]
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self::of(Body::Vec(body.into()))
    }

    /// A response whose body is this constant.
    ///
    /// # Cost
    /// One copy, no allocation.
    #[must_use]
    pub const fn from_static(body: &'static [u8]) -> Self {
        Self::of(Body::Static(body))
    }

    /// An empty response whose body is written straight into the call's slot: by [`io::Write`],
    /// [`Response::extend_from_slice`] or [`Response::resize`].
    ///
    /// Outside a worker, in a function with a lasting state, and while another response of this call is being written in place, it collects into
    /// memory of its own: the same bytes, one copy more.
    ///
    /// A [safe point](crate::checkpoint), as all that adds to a response.
    #[must_use]
    pub fn in_place() -> Self {
        checkpoint();
        Self::of(InPlace::take().map_or(Body::Vec(Vec::new()), Body::InPlace))
    }

    const fn of(body: Body) -> Self {
        Self { status: None, meta: Vec::new(), pairs: 0, body }
    }

    /// Sets the HTTP status; without one it is 200.
    ///
    /// # Panics
    /// Where `status` is not 100 to 999.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        assert!((100..=999).contains(&status), "HTTP status {status} is not 100 to 999");
        Self { status: Some(status), ..self }
    }

    /// Appends a header; for names and values that the program knows.
    ///
    /// # Panics
    /// Where [`Response::try_with_header`] fails.
    #[must_use]
    #[track_caller]
    pub fn with_header(self, name: &str, value: &str) -> Self {
        match self.try_with_header(name, value) {
            Ok(response) => response,
            Err(error) => panic!("header {name:?}: {error}"),
        }
    }

    /// Appends a header; for names and values that came from outside. Names may repeat.
    ///
    /// # Errors
    /// - [`MessageError::Name`]: `name` is not 1 to 255 characters of the HTTP token alphabet without upper case.
    ///   Pseudo-headers are refused, too: the status has [`Response::with_status`].
    /// - [`MessageError::Value`]: `value` has a control character (such as CR, LF or NUL) or is over 65,535 bytes.
    /// - [`MessageError::TooManyPairs`], [`MessageError::TooLong`]: the metadata is full.
    pub fn try_with_header(mut self, name: &str, value: &str) -> Result<Self, MessageError> {
        checkpoint();
        if name.starts_with(':') {
            return Err(MessageError::Name);
        }
        // Room for the status is kept free.
        if self.pairs + 1 >= PAIRS_MAX {
            return Err(MessageError::TooManyPairs);
        }
        let start = self.meta.len();
        let end = start + encoded_len([(name, value)]);
        if end + STATUS_PAIR_BYTES > META_BYTES_MAX {
            return Err(MessageError::TooLong);
        }
        self.meta.resize(end, 0);
        Encoder::new(&mut self.meta[start..]).push(name, value)?;
        self.pairs += 1;
        Ok(self)
    }

    /// Appends to the body.
    ///
    /// In a worker, a body over the response limit ends the call: the caller gets TOO_LARGE.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        checkpoint();
        match &mut self.body {
            Body::InPlace(out) => out.extend_from_slice(bytes),
            Body::Vec(body) => body.extend_from_slice(bytes),
            Body::Static(body) => self.body = Body::Vec([body, bytes].concat()),
        }
    }

    /// Makes the body `len` bytes long: cuts it, or appends zeros to be overwritten through [`Response::body_mut`].
    pub fn resize(&mut self, len: usize) {
        checkpoint();
        match &mut self.body {
            Body::InPlace(out) => out.resize(len),
            Body::Vec(body) => body.resize(len, 0),
            Body::Static(bytes) => {
                let mut body = bytes.to_vec();
                body.resize(len, 0);
                self.body = Body::Vec(body);
            }
        }
    }

    /// The body so far.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::InPlace(out) => out.bytes(),
            Body::Vec(body) => body,
            Body::Static(body) => body,
        }
    }

    /// The body so far, to be changed.
    pub fn body_mut(&mut self) -> &mut [u8] {
        if let Body::Static(body) = self.body {
            self.body = Body::Vec(body.to_vec());
        }
        match &mut self.body {
            Body::InPlace(out) => out.bytes_mut(),
            Body::Vec(body) => body,
            Body::Static(_) => &mut [],
        }
    }

    /// The HTTP status, where one was set.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Value of the first header of this name, which is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.pairs().get(name)
    }

    /// The headers in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.pairs().iter()
    }

    fn pairs(&self) -> Pairs<'_> {
        Pairs::parse(&self.meta).unwrap_or_default()
    }

    /// Bytes that [`Response::encode_meta`] writes.
    pub(crate) fn meta_len(&self) -> usize {
        self.meta.len() + if self.status.is_some() { STATUS_PAIR_BYTES } else { 0 }
    }

    /// Writes status and headers into `out`, which is [`Response::meta_len`] long.
    pub(crate) fn encode_meta(&self, out: &mut [u8]) {
        let mut at = 0;
        if let Some(status) = self.status {
            let digits = [status / 100, status / 10 % 10, status % 10];
            // `with_status` has checked that there are three digits.
            let digits = digits.map(|digit| b'0' + u8::try_from(digit).unwrap_or(0));
            let mut encoder = Encoder::new(out);
            let value = core::str::from_utf8(&digits).unwrap_or("500");
            encoder.push(":status", value).expect("the name is valid, the buffer holds it");
            at = encoder.finish();
        }
        out[at..].copy_from_slice(&self.meta);
    }

    pub(crate) fn is_in_place(&self) -> bool {
        matches!(self.body, Body::InPlace(_))
    }

    /// Takes the body out, leaving an empty one.
    pub(crate) fn take_body(&mut self) -> Body {
        core::mem::replace(&mut self.body, Body::Static(&[]))
    }
}

/// Appends to the body; never fails.
impl io::Write for Response {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers().collect::<Vec<_>>())
            .field("body_len", &self.body().len())
            .finish()
    }
}

impl<B: Into<Vec<u8>>> From<B> for Response {
    fn from(body: B) -> Self {
        Self::new(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn metadata_is_the_status_then_the_headers() {
        let response = Response::new("x").with_header("content-type", "text/plain").with_status(404);
        let mut block = vec![0; response.meta_len()];
        response.encode_meta(&mut block);
        let pairs = Pairs::parse(&block).unwrap();
        assert!(pairs.iter().eq([(":status", "404"), ("content-type", "text/plain")]));
        assert_eq!(response.header("content-type"), Some("text/plain"));
    }

    #[test]
    fn in_place_collects_outside_a_worker() {
        let mut response = Response::in_place();
        write!(response, "{}-", 12).unwrap();
        response.extend_from_slice(b"ab");
        response.resize(4);
        response.body_mut()[0] = b'7';
        assert_eq!(response.body(), b"72-a");
    }

    #[test]
    fn a_static_body_becomes_its_own_when_changed() {
        let mut response = Response::from_static(b"ab");
        response.extend_from_slice(b"c");
        assert_eq!(response.body(), b"abc");
        let mut response = Response::from_static(b"ab");
        response.body_mut()[1] = b'x';
        assert_eq!(response.body(), b"ax");
        let mut response = Response::from_static(b"ab");
        response.resize(3);
        assert_eq!(response.body(), b"ab\0");
    }

    #[test]
    fn headers_that_could_split_are_refused() {
        for (name, value, error) in [
            ("x", "a\r\nset-cookie: b", MessageError::Value),
            ("X", "a", MessageError::Name),
            (":status", "200", MessageError::Name),
            ("", "a", MessageError::Name),
        ] {
            assert_eq!(Response::new("").try_with_header(name, value).err(), Some(error), "{name:?}");
        }
    }

    #[test]
    fn room_for_the_status_is_kept_free() {
        let mut response = Response::new("");
        loop {
            match response.try_with_header("n", "v") {
                Ok(more) => response = more,
                Err(error) => {
                    assert_eq!(error, MessageError::TooManyPairs);
                    break;
                }
            }
            let full = Response {
                status: Some(200),
                meta: response.meta.clone(),
                pairs: 0,
                body: Body::Static(b""),
            };
            let mut block = vec![0; full.meta_len()];
            full.encode_meta(&mut block);
            assert!(Pairs::parse(&block).is_ok(), "{} headers and the status", response.pairs);
        }
    }

    #[test]
    #[should_panic(expected = "HTTP status 42 is not 100 to 999")]
    fn a_status_has_three_digits() {
        let _ = Response::new("").with_status(42);
    }
}
