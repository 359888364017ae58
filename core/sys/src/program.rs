//! A program that is started again and again, and stays the one that it was.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{self, Path, PathBuf};

/// The file of a program, held open: what is installed at its path later is another program.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    file: File,
}

impl Program {
    /// Takes hold of the program at this path, which need not be readable.
    ///
    /// # Errors
    /// As `open(2)`. Whether it can be executed is seen when it is.
    pub fn hold(program: &Path) -> io::Result<Self> {
        let path = path::absolute(program)?;
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path)?;
        Ok(Self { path, file })
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to execute: the path while the file is there, then another descriptor of it, which is open as long as the second value is. (Not always a descriptor: a script is
    /// opened once more by its interpreter, which does not have it.)
    ///
    /// # Errors
    /// Out of descriptors.
    pub(crate) fn to_execute(&self) -> io::Result<(PathBuf, Option<File>)> {
        let held = id(&self.file.metadata()?);
        if fs::metadata(&self.path).is_ok_and(|found| id(&found) == held) {
            return Ok((self.path.clone(), None));
        }
        let file = self.file.try_clone()?;
        Ok((format!("/proc/self/fd/{}", file.as_raw_fd()).into(), Some(file)))
    }
}

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
