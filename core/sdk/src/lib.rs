//! What a function author writes against.
//!
//! A function is safe Rust that takes bytes and answers bytes. It runs in a worker, one call at a time, called in place:
//! its request lies in shared memory and is borrowed from there, and its response is written there.
//!
//! ```
//! #![forbid(unsafe_code)]
//! use microfaas::{Request, Response};
//!
//! #[microfaas::function]
//! pub fn shout(body: &[u8]) -> Vec<u8> {
//!     body.to_ascii_uppercase()
//! }
//!
//! #[microfaas::function(name = "hello.v2")]
//! pub fn hello(request: Request<'_>) -> Result<Response, std::str::Utf8Error> {
//!     let name = std::str::from_utf8(request.body())?;
//!     Ok(Response::new(format!("hello {name}")).with_header("content-type", "text/plain"))
//! }
//!
//! // The functions stay plain Rust, to be tested without a node.
//! # fn main() {
//! assert_eq!(shout(b"hi"), b"HI");
//! assert_eq!(hello(Request::new(b"you")).unwrap().body(), b"hello you");
//! # }
//! ```
//!
//! `microfaas build DIR -o OUT` makes a module of the crate: it checks that the crate forbids `unsafe`, generates
//! the code that exports the functions, and compiles both into one shared library.
//!
//! # What a function may rely on
//! - One call at a time: nothing else runs in its instance while it runs.
//! - **Every call starts from the same state.** Statics, thread-locals and the heap are put back after each call to
//!   what they were after `init`. What is to last from call to call is built by `init` or lives elsewhere.
//! - A panic ends the call, not the worker; the caller gets its message.
//! - Memory is there, or the call ends with OOM: `Vec::try_reserve` and its like return an error for a size that no address space has, and
//!   for nothing else.
//! - No threads, files, sockets or processes: the sandbox has none.

#[cfg(test)]
extern crate self as microfaas;

mod error;
mod glue;
mod inputs;
mod request;
mod response;

pub use error::Error;
pub use glue::FunctionDef;
pub use glue::runtime::checkpoint;
pub use microfaas_lane::message::MessageError;
pub use request::Request;
pub use response::Response;

/// Makes a free-standing function callable by name through a microfaas node.
///
/// The name is the function's own or that of `name = "…"`: 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`, starting
/// with a letter or digit.
///
/// The function takes `&[u8]` or [`Request`], and returns `Vec<u8>`, `String`, `&'static str` or
/// [`Response`], or a `Result` of one of them with an error that can be displayed. The text of an `Err` is the
/// body of an answer with the status ERROR; with [`Error`] it has an HTTP status, too.
///
/// With `init = path`, `path()` builds a state, or a `Result` of one, once when the module is loaded, and
/// each call gets a reference to it as its first parameter. The state must be `Send + Sync + 'static`. A failed `init`
/// refuses the load.
///
/// ```
/// use std::collections::HashMap;
///
/// fn table() -> Result<HashMap<&'static str, u32>, std::num::ParseIntError> {
///     ["one=1", "two=2"].iter().filter_map(|line| line.split_once('=')).map(|(k, v)| Ok((k, v.parse()?))).collect()
/// }
///
/// #[microfaas::function(name = "look-up", init = table)]
/// pub fn look_up(table: &HashMap<&'static str, u32>, body: &[u8]) -> Result<String, microfaas::Error> {
///     let key = std::str::from_utf8(body).map_err(|e| microfaas::Error::new(e).with_status(400))?;
///     let value = table.get(key).ok_or_else(|| microfaas::Error::new("no such key").with_status(404))?;
///     Ok(value.to_string())
/// }
///
/// let table = table().unwrap();
/// assert_eq!(look_up(&table, b"two").unwrap(), "2");
/// assert_eq!(look_up(&table, b"six").unwrap_err().status(), Some(404));
/// ```
///
/// Refused, with a message: methods, `async`, `unsafe`, `extern` and generic functions.
pub use microfaas_macros::function;

#[doc(hidden)]
pub mod __private {
    pub use crate::glue::alloc::ModuleAllocator;
    pub use crate::glue::entry::{attach, run_call, run_init};
    pub use crate::glue::invocation::Invocation;
    pub use crate::glue::state::{IntoState, State};
    pub use crate::glue::{
        Note, check_name, libc_memory, libc_process, libc_threads, libc_time, names_are_distinct,
    };
    pub use crate::inputs::{FromInvocation, IntoReply};
    pub use microfaas_abi as abi;
    pub use microfaas_abi::Outcome;
}

#[cfg(test)]
mod tests {
    /// Functions with the names that what the attribute makes of them has a use for.
    mod named {
        use std::convert::Infallible;

        fn init() -> Result<u8, Infallible> {
            Ok(7)
        }

        #[microfaas::function(init = init)]
        pub(super) fn invocation(state: &u8, body: &[u8]) -> Vec<u8> {
            [&[*state], body].concat()
        }

        #[microfaas::function]
        pub(super) fn call(body: &[u8]) -> Vec<u8> {
            body.to_vec()
        }
    }

    #[test]
    fn functions_may_have_any_name() {
        assert_eq!(
            [named::__microfaas_invocation.name, named::__microfaas_call.name],
            ["invocation", "call"]
        );
        let init = named::__microfaas_invocation.init.expect("the attribute names one");
        assert_eq!(init(), Ok(()));
        assert_eq!((named::invocation(&7, b"x"), named::call(b"x")), (vec![7, b'x'], vec![b'x']));
        assert!(named::__microfaas_call.init.is_none());
    }
}
