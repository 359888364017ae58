//! Modules as files and as images: read once, examined, copied where nobody can change them any more.

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use microfaas_manifest::{InspectError, MODULE_BYTES_MAX, inspect_bytes};
use microfaas_sys::memfd;
use sha2::{Digest as _, Sha256};

use crate::DeployError;

/// SHA-256 of a module's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A module's file as it was when it was read.
#[derive(Debug)]
pub(crate) struct Image {
    /// The file's name, by which the module is known.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
    /// Sealed copy, the one that was inspected: what happens to the file later does not matter.
    pub(crate) sealed: Arc<OwnedFd>,
    /// Names of its functions, in the order of its table.
    pub(crate) functions: Vec<String>,
}

impl Image {
    /// Reads a module. Runs nothing of it.
    ///
    /// # Errors
    /// [`DeployError::Module`].
    ///
    /// # Cost
    /// Reads the whole file, twice its size in memory for a moment.
    pub(crate) fn read(path: &Path) -> Result<Self, DeployError> {
        let refused = |source| DeployError::Module { path: path.to_owned(), source };
        let bytes = read(path).map_err(refused)?;
        let manifest = inspect_bytes(&bytes).map_err(refused)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let sealed = seal(&name, &bytes).map_err(|error| refused(error.into()))?;
        Ok(Self {
            name,
            path: path.to_owned(),
            digest: Digest(Sha256::digest(&bytes).into()),
            bytes: bytes.len() as u64,
            sealed: Arc::new(sealed),
            functions: manifest.functions,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, InspectError> {
    // Asked before opening: opening a pipe waits for its writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(InspectError::NotAFile);
    }
    if metadata.len() > MODULE_BYTES_MAX {
        return Err(InspectError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MODULE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The kernel takes names of at most 249 bytes without a zero.
fn seal(name: &str, bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let name: Vec<u8> = name.bytes().filter(|&b| b != 0).take(200).collect();
    let name = CString::new(name).expect("zeros were filtered out");
    memfd::from_bytes(&name, bytes)
}

/// Where modules come from, in the order given.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Directory(PathBuf),
    File(PathBuf),
}

impl Source {
    /// A directory where it is one, else a file, whether it is there or not.
    pub(crate) fn of(path: PathBuf) -> Self {
        if path.is_dir() { Self::Directory(path) } else { Self::File(path) }
    }
}

/// Reads every module of the sources. A file that is given twice, as by a directory and by name, is one module.
///
/// # Errors
/// [`DeployError::Directory`], [`DeployError::Module`], [`DeployError::NoModules`].
pub(crate) fn read_all(sources: &[Source]) -> Result<Vec<Arc<Image>>, DeployError> {
    let mut seen = std::collections::HashSet::new();
    let mut images = Vec::new();
    for path in files(sources)? {
        if seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
            images.push(Arc::new(Image::read(&path)?));
        }
    }
    if images.is_empty() {
        return Err(DeployError::NoModules { looked: describe(sources) });
    }
    Ok(images)
}

fn files(sources: &[Source]) -> Result<Vec<PathBuf>, DeployError> {
    let mut files = Vec::new();
    for source in sources {
        match source {
            Source::File(path) => files.push(path.clone()),
            Source::Directory(path) => {
                let failed = |source| DeployError::Directory { path: path.clone(), source };
                let mut found = Vec::new();
                for entry in fs::read_dir(path).map_err(failed)? {
                    let file = entry.map_err(failed)?.path();
                    if file.extension().is_some_and(|extension| extension == "so") {
                        found.push(file);
                    }
                }
                found.sort();
                files.extend(found);
            }
        }
    }
    Ok(files)
}

fn describe(sources: &[Source]) -> String {
    if sources.is_empty() {
        return "neither a module nor a module directory is given".into();
    }
    let mut text = String::new();
    for source in sources {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a `String` cannot fail.
        let _ = match source {
            Source::Directory(path) => write!(text, "{separator}no *.so in `{}`", path.display()),
            Source::File(path) => write!(text, "{separator}none in `{}`", path.display()),
        };
    }
    text
}
