//! What `init` builds.

use core::fmt::Display;
use std::sync::OnceLock;

use crate::Error;

/// Where the attribute macro keeps a function's state.
#[derive(Debug)]
pub struct State<T>(OnceLock<T>);

impl<T> State<T> {
    #[doc(hidden)]
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Keeps the state. Later ones are dropped: there is one `init` for each load.
    ///
    /// # Errors
    /// Never; it is the last step of an `init` that may fail.
    pub fn set(&self, state: T) -> Result<(), Error> {
        let _ = self.0.set(state);
        Ok(())
    }

    /// The state.
    ///
    /// # Panics
    /// Before `init`: the worker calls it when it loads the module.
    #[inline]
    pub fn get(&self) -> &T {
        self.0.get().expect("the worker calls init before the first call")
    }
}

/// What an `init` function may return: the state, or a `Result` of it.
#[diagnostic::on_unimplemented(
    message = "`init` returns `{Self}`, but the function takes `&{T}`",
    label = "expected `{T}` or `Result<{T}, E>` with an `E` that is `Display`"
)]
pub trait IntoState<T> {
    /// The state, or why there is none.
    ///
    /// # Errors
    /// What `init` says.
    fn into_state(self) -> Result<T, Error>;
}

impl<T> IntoState<T> for T {
    fn into_state(self) -> Result<T, Error> {
        Ok(self)
    }
}

impl<T, E: Display> IntoState<T> for Result<T, E> {
    fn into_state(self) -> Result<T, Error> {
        self.map_err(Error::new)
    }
}
