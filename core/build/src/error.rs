//! What can go wrong, each with the place.

use std::io;
use std::path::PathBuf;

use microfaas_manifest::InspectError;
use thiserror::Error;

/// Why a crate could not be made or no module was built. The text is one line; cargo's own output is in
/// [`BuildError::cargo_output`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `scaffold` was given something that exists and is not an empty directory.
    #[error("{0} exists and is not an empty directory")]
    NotEmpty(PathBuf),
    /// `scaffold` cannot name a crate after the directory.
    #[error(
        "{0}: a crate cannot be named after this directory; use letters, digits, - and _, starting with a letter, and no word of Rust or crate of its own"
    )]
    CrateName(PathBuf),
    /// No directory was given.
    #[error("no function crate to build")]
    Nothing,
    /// There is no crate in the directory.
    #[error("{0} is not a crate: it has no Cargo.toml")]
    NotACrate(PathBuf),
    /// A workspace without a crate of its own.
    #[error("{0} is a workspace, not a crate; name the crates in it")]
    Workspace(PathBuf),
    /// The crate has no library target that a shim could link.
    #[error("{manifest}: crate `{krate}` has no library target of type lib")]
    NoLibrary {
        /// Its Cargo.toml.
        manifest: PathBuf,
        /// Its name.
        krate: String,
    },
    /// The edition lets unsafe declarations through that a later one refuses.
    #[error("{manifest}: edition {edition}, function crates need 2024")]
    Edition {
        /// Its Cargo.toml.
        manifest: PathBuf,
        /// What it says.
        edition: String,
    },
    /// The crate does not depend on the SDK.
    #[error("{manifest}: crate `{krate}` does not depend on `microfaas`")]
    NoSdk {
        /// Its Cargo.toml.
        manifest: PathBuf,
        /// Its name.
        krate: String,
    },
    /// The crate root lets `unsafe` in.
    #[error("{0}: function crates must have #![forbid(unsafe_code)] at the top of the crate root")]
    NotForbidden(PathBuf),
    /// The word `unsafe` stands in the author's code.
    #[error("{file}:{line}: `unsafe` in a function crate")]
    Unsafe {
        /// Source file.
        file: PathBuf,
        /// Line in it, from 1.
        line: usize,
    },
    /// A source file is not Rust.
    #[error("{file}:{line}: {message}")]
    Syntax {
        /// Source file.
        file: PathBuf,
        /// Line in it, from 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A function is at a place where the shim cannot name it.
    #[error("{file}:{line}: function `{function}` {why}")]
    Unreachable {
        /// Source file.
        file: PathBuf,
        /// Line in it, from 1.
        line: usize,
        /// The function.
        function: String,
        /// What is in the way, and what to do.
        why: String,
    },
    /// A function's name is not valid.
    #[error(
        "{file}:{line}: `{name}` is not a function name: 1 to 64 of a-z, 0-9, -, _ and ., starting with a letter or digit"
    )]
    FunctionName {
        /// Source file.
        file: PathBuf,
        /// Line in it, from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// Two functions have one name.
    #[error("function `{name}` is in {first} and in {second}")]
    DuplicateFunction {
        /// The name.
        name: String,
        /// `file:line` of the first.
        first: String,
        /// `file:line` of the second.
        second: String,
    },
    /// Two crates would be built into one file.
    #[error("two crates are named `{0}`")]
    DuplicateCrate(String),
    /// There is nothing to export.
    #[error("{0}: no function with #[microfaas::function] in this crate")]
    NoFunction(PathBuf),
    /// Cargo could not be started.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// Which program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Cargo failed.
    #[error("{manifest}: {what} failed: {first_line}")]
    Cargo {
        /// The Cargo.toml it was run for.
        manifest: PathBuf,
        /// `cargo metadata` or `cargo rustc`.
        what: &'static str,
        /// First error of its output.
        first_line: String,
        /// All of its output.
        output: String,
    },
    /// What was built is no module that this runtime can use.
    #[error("{file}: {source}")]
    Inspect {
        /// The shared library.
        file: PathBuf,
        /// Why.
        source: InspectError,
    },
    /// A file could not be read or written.
    #[error("{path}: cannot {what}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// `read`, `write` and the like.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl BuildError {
    /// All that cargo printed, where cargo failed: rendered diagnostics, several lines.
    #[must_use]
    pub fn cargo_output(&self) -> Option<&str> {
        match self {
            Self::Cargo { output, .. } => Some(output),
            _ => None,
        }
    }
}

/// For `map_err`: a file operation that failed.
pub(crate) fn io_error(path: &std::path::Path, what: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Io { path, what, source }
}
