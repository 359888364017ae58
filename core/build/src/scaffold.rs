//! `microfaas new`: a crate to start from.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::{BuildError, io_error};

/// Where a new crate takes the SDK from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SdkDependency {
    /// This directory.
    Path(PathBuf),
    /// This version, from the registry.
    Version(String),
}

impl SdkDependency {
    /// The checkout that this program was built from, if it is still there, else this program's own version.
    #[must_use]
    pub fn find() -> Self {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
        match sdk.canonicalize() {
            Ok(sdk) if sdk.join("Cargo.toml").is_file() => Self::Path(sdk),
            _ => Self::Version(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }
}

/// Makes a crate in `dir`: one function and a test of it. `dir` is created; it may exist if it is empty.
///
/// # Errors
/// [`BuildError::NotEmpty`], [`BuildError::CrateName`] where the directory's name cannot name a crate, and
/// [`BuildError::Io`].
pub fn scaffold(dir: &Path, sdk: &SdkDependency) -> Result<(), BuildError> {
    let absolute = std::path::absolute(dir).map_err(io_error(dir, "find"))?;
    let name = absolute.file_name().and_then(|name| name.to_str()).filter(|name| is_crate_name(name));
    let name = name.ok_or_else(|| BuildError::CrateName(dir.to_owned()))?;
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(BuildError::NotEmpty(dir.to_owned()));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(_) if dir.symlink_metadata().is_ok() => return Err(BuildError::NotEmpty(dir.to_owned())),
        Err(error) => return Err(io_error(dir, "look at")(error)),
    }
    let source = dir.join("src");
    fs::create_dir_all(&source).map_err(io_error(&source, "create"))?;
    for (path, text) in [
        (dir.join("Cargo.toml"), manifest(name, sdk)),
        (dir.join(".gitignore"), "/target\n".to_owned()),
        (source.join("lib.rs"), LIB_RS.to_owned()),
    ] {
        fs::write(&path, text).map_err(io_error(&path, "write"))?;
    }
    Ok(())
}

fn is_crate_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        // The shim and the author's crate need different names, and a crate called `test` cannot be tested.
        && !["microfaas", "test", "core", "std", "alloc", "proc_macro"].contains(&name)
        && syn::parse_str::<syn::Ident>(&name.replace('-', "_")).is_ok()
}

fn manifest(name: &str, sdk: &SdkDependency) -> String {
    let mut dependency = Table::new();
    match sdk {
        SdkDependency::Path(path) => {
            dependency.insert("path".into(), Value::String(path.to_string_lossy().into_owned()))
        }
        SdkDependency::Version(version) => {
            dependency.insert("version".into(), Value::String(version.clone()))
        }
    };
    let dependency = Value::Table(dependency);
    // A workspace of its own, so that it builds wherever it lies.
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         [dependencies]\nmicrofaas = {dependency}\n\n[workspace]\n"
    )
}

const LIB_RS: &str = r##"//! Functions for microfaas. `cargo test` tests them, `microfaas build . -o OUT` makes a module of them.
#![forbid(unsafe_code)]

use microfaas::{Request, Response};

/// Greets whom the body names.
#[microfaas::function]
pub fn hello(request: Request<'_>) -> Result<Response, microfaas::Error> {
    let name = std::str::from_utf8(request.body())
        .map_err(|error| microfaas::Error::new(error).with_status(400))?;
    let name = if name.is_empty() { "world" } else { name };
    Ok(Response::new(format!("Hello, {name}!\n")).with_header("content-type", "text/plain; charset=utf-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets() {
        let response = hello(Request::new(b"Ada")).unwrap();
        assert_eq!(response.body(), b"Hello, Ada!\n");
    }

    #[test]
    fn refuses_what_is_not_text() {
        let error = hello(Request::new(b"\xff")).unwrap_err();
        assert_eq!(error.status(), Some(400));
    }
}
"##;
