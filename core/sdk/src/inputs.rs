//! What a function may take and what it may return.

use core::any::Any;
use core::fmt::Display;

use crate::glue::invocation::Invocation;
use crate::{Error, Request, Response};

/// What a function can take: made from the call without copying.
#[diagnostic::on_unimplemented(
    message = "a microfaas function cannot take `{Self}`",
    label = "expected `&[u8]` or `microfaas::Request<'_>`"
)]
pub trait FromInvocation<'a> {
    /// The call as this type.
    fn from_invocation(invocation: &Invocation<'a>) -> Self;
}

impl<'a> FromInvocation<'a> for &'a [u8] {
    fn from_invocation(invocation: &Invocation<'a>) -> Self {
        invocation.body()
    }
}

impl<'a> FromInvocation<'a> for Request<'a> {
    fn from_invocation(invocation: &Invocation<'a>) -> Self {
        Request::from_parts(
            invocation.body(),
            invocation.meta(),
            invocation.deadline_ns(),
            invocation.flags(),
        )
    }
}

/// What a function can return: either side becomes a response.
#[diagnostic::on_unimplemented(
    message = "a microfaas function cannot return `{Self}`",
    label = "expected `Vec<u8>`, `String`, `&'static str`, `microfaas::Response` or a `Result` of one with an error that is `Display + 'static`"
)]
pub trait IntoReply {
    /// `Err` where the function itself failed.
    ///
    /// # Errors
    /// The response that tells the caller why.
    fn into_reply(self) -> Result<Response, Response>;
}

impl IntoReply for Response {
    fn into_reply(self) -> Result<Response, Response> {
        Ok(self)
    }
}

macro_rules! reply_of_bytes {
    ($($bytes:ty),+) => {$(
        impl IntoReply for $bytes {
            fn into_reply(self) -> Result<Response, Response> {
                Ok(Response::new(self))
            }
        }
    )+};
}
reply_of_bytes!(Vec<u8>, String, &'static str, &'static [u8]);

impl<T: IntoReply, E: Display + 'static> IntoReply for Result<T, E> {
    fn into_reply(self) -> Result<Response, Response> {
        match self {
            Ok(value) => value.into_reply(),
            Err(error) => {
                let response = Response::new(error.to_string());
                let status = (&error as &dyn Any).downcast_ref::<Error>().and_then(Error::status);
                Err(match status {
                    Some(status) => response.with_status(status),
                    None => response,
                })
            }
        }
    }
}
