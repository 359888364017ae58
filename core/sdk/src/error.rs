//! The error that a function may return when it wants to say more than a text.

use core::fmt;

/// A message for the caller and, optionally, an HTTP status.
///
/// It deliberately does not implement [`std::error::Error`], so that any such error converts into it by `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    status: Option<u16>,
}

impl Error {
    /// An error with the text of `message` and no status of its own.
    #[must_use]
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), status: None }
    }

    /// Sets the status that an HTTP caller gets; without one it is the gateway's choice.
    ///
    /// # Panics
    /// Where `status` is not 100 to 999.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        assert!((100..=999).contains(&status), "HTTP status {status} is not 100 to 999");
        Self { status: Some(status), ..self }
    }

    /// The text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The HTTP status, where one was given.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}
