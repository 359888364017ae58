//! Digests the sources of what a node and a worker say to each other, so that two programs can tell whether they were built from the same.

use std::path::Path;
use std::{env, fs, io};

/// Where the messages, the lanes and the counts are defined, seen from this crate.
const SOURCES: [&str; 3] = ["src", "../lane/src", "../metrics/src"];

fn main() -> io::Result<()> {
    let mut digest = Digest::default();
    for folder in SOURCES {
        println!("cargo::rerun-if-changed={folder}");
        digest.folder(Path::new(folder))?;
    }
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").map_err(io::Error::other)?;
    println!("cargo::rustc-env=MICROFAAS_BUILD={version}+{:016x}", digest.0);
    Ok(())
}

/// FNV-1a: whoever makes two builds collide on purpose deceives himself.
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Names and contents of all files, in the order of their names. One that is not there has none.
    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        if !folder.is_dir() {
            return Ok(());
        }
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            self.bytes(entry.file_name().as_encoded_bytes());
            match entry.file_type()?.is_dir() {
                true => self.folder(&entry.path())?,
                false => self.bytes(&fs::read(entry.path())?),
            }
        }
        Ok(())
    }
}
