//! The module that answers, in as many versions as an experiment wants: one is built, others differ from it in digits that are written into the file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use microfaas_build::{BuildError, BuildOptions, build};

const FUNCTIONS: [&str; 2] = ["chaos", "numbered"];
const VERSION: &[u8] = b"version-00000000";
const NAME: &[u8] = b"numbered_00000000";

/// File name of the library that moves the wall clock.
pub const SHIM: &str = "wall_clock.shim";

/// The bytes of the two modules.
#[derive(Debug)]
pub struct Modules {
    chaos: Vec<u8>,
    numbered: Vec<u8>,
}

/// Builds the function crates of the checkout that this program was built in; returns the folder of their modules.
///
/// # Errors
/// Where they cannot be built.
pub fn make(scratch: &Path) -> Result<PathBuf, BuildError> {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions");
    let mut options = BuildOptions::new(FUNCTIONS.map(|name| functions.join(name)), scratch.join("modules"));
    options.target_dir = Some(scratch.join("target"));
    build(&options, &mut |_| {})?;
    Ok(options.out)
}

/// Compiles what moves the wall clock of the processes that it is preloaded into, beside those modules.
///
/// # Errors
/// Where the compiler cannot be run, or refuses it.
pub fn make_shim(modules: &Path) -> io::Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim/wall_clock.rs");
    // It leaves files beside its output for a while, of the same names for everybody who does this.
    let apart = tempfile::tempdir_in(modules.parent().unwrap_or(modules))?;
    let library = apart.path().join(SHIM);
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort", "-o"]);
    let status = command.arg(&library).arg(source).status()?;
    if !status.success() {
        return Err(io::Error::other(format!("rustc: {status}")));
    }
    fs::rename(library, modules.join(SHIM))
}

impl Modules {
    /// Reads what [`make`] has made.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let [chaos, numbered] = FUNCTIONS.map(|name| fs::read(folder.join(name).with_extension("so")));
        Ok(Self { chaos: chaos?, numbered: numbered? })
    }

    /// The module with the functions that answer, in a version of it.
    #[must_use]
    pub fn version(&self, version: u32) -> Vec<u8> {
        replaced(&self.chaos, VERSION, &digits(VERSION, version))
    }

    /// A module with one function, `numbered_NNNNNNNN`, which only this number has.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Vec<u8> {
        let named = replaced(&self.numbered, NAME, &digits(NAME, number));
        replaced(&named, VERSION, &digits(VERSION, number))
    }
}

/// The name of the function of a numbered module.
#[must_use]
pub fn numbered_name(number: u32) -> String {
    String::from_utf8_lossy(&digits(NAME, number)).into_owned()
}

/// What the function of a numbered module says.
#[must_use]
pub fn numbered_answer(number: u32) -> Vec<u8> {
    digits(VERSION, number)
}

fn digits(text: &[u8], number: u32) -> Vec<u8> {
    let word = text.iter().take_while(|byte| !byte.is_ascii_digit());
    word.copied().chain(format!("{number:08}").into_bytes()).collect()
}

/// With every occurrence of `from` replaced by `to`, which is as long.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to);
        at += to.len();
    }
    bytes
}

/// Puts a file into a folder as a whole: whoever reads it sees the old one or the new one.
///
/// # Errors
/// As `rename(2)`.
pub fn put(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let (new, path) = (folder.join(format!(".{name}.new")), folder.join(name));
    fs::write(&new, bytes)?;
    fs::rename(&new, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_written_everywhere() {
        let bytes = [b"ab".as_slice(), VERSION, b"version-0000", VERSION].concat();
        let with = replaced(&bytes, VERSION, &digits(VERSION, 42));
        assert_eq!(with, b"abversion-00000042version-0000version-00000042");
        assert_eq!(replaced(VERSION, VERSION, VERSION), VERSION);
        assert_eq!(numbered_name(7), "numbered_00000007");
    }
}
