//! Where the hostile worker's calls of `gate` wait: for what is to be while a worker is busy, however long the machine takes over it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

/// How often either side looks.
const LOOK: Duration = Duration::from_millis(1);
/// Made in a gate's folder by the calls that have come to it.
const REACHED: &str = "reached";
/// Made in a gate's folder when its calls are let through.
const OPEN: &str = "open";

/// See the module.
#[derive(Debug)]
pub struct Gate(TempDir);

impl Gate {
    /// One that is shut. Its calls are let through when it is dropped, too.
    ///
    /// # Panics
    /// Where its folder cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory for a test"))
    }

    /// The body of its calls.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.0.path().as_os_str().as_encoded_bytes()
    }

    /// Waits until a call has come to it, which has started then.
    pub fn wait(&self) {
        while !self.0.path().join(REACHED).exists() {
            std::thread::sleep(LOOK);
        }
    }

    /// Lets its calls through, those that come later, too.
    ///
    /// # Panics
    /// Where its folder cannot be written.
    pub fn open(&self) {
        std::fs::write(self.0.path().join(OPEN), "").expect("writing into a directory for tests");
    }
}

/// The worker's part: waits at the gate that has this folder, until it is open or gone.
pub fn pass(folder: &Path) {
    let _ = File::create(folder.join(REACHED));
    while folder.exists() && !folder.join(OPEN).exists() {
        std::thread::sleep(LOOK);
    }
}
