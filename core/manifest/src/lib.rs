//! Reads what a module says of itself, without loading it: no code of the module runs.
//!
//! The file is not trusted: it may be anything, and whatever it is, the answer is a manifest or an error. An error, too, where loading it would run code, as far as
//! its headers agree with each other.

mod loading;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use microfaas_abi::manifest::{self, ManifestError};
use object::elf;
use object::read::elf::{ElfFile64, FileHeader};
use object::{Endianness, Object, ObjectSection};
use thiserror::Error;

/// What a module says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// Always [`microfaas_abi::ABI_VERSION`]: another version is an error.
    pub abi_version: u32,
    /// Names of the functions in the order of the module's table, each valid and none twice.
    pub functions: Vec<String>,
}

/// Largest file that is read.
pub const MODULE_BYTES_MAX: u64 = 1 << 30;

/// Why a file is not a module that this runtime can use. The path is the caller's to add.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InspectError {
    /// It could not be opened or read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A directory, a pipe or the like.
    #[error("is not a regular file")]
    NotAFile,
    /// Over [`MODULE_BYTES_MAX`].
    #[error("has {0} bytes, allowed are {MODULE_BYTES_MAX}")]
    TooLarge(u64),
    /// No ELF file at all, or a broken one.
    #[error("is not an ELF file")]
    NotElf,
    /// ELF, but for another machine, class or byte order.
    #[error("is built for another kind of machine")]
    Machine,
    /// ELF for this machine, but a program or an object file.
    #[error("is not a shared library")]
    NotShared,
    /// It would make the process's stack executable, or says nothing about that, which comes to the same.
    #[error("asks for an executable stack (PT_GNU_STACK)")]
    ExecutableStack,
    /// A segment of it is writable and executable.
    #[error("has memory that is both writable and executable")]
    WritableCode,
    /// Its code would have to be written to when it is loaded.
    #[error("has relocations in its code (DT_TEXTREL): it is not built as position-independent code")]
    TextRelocations,
    /// It has functions that run when it is loaded or unloaded, before any limit is in force.
    #[error(
        "has {count} functions in {what}, allowed are {most}, which every module has: code of a dependency would run when it is loaded or unloaded{}; switch the dependency's constructor off (mostly one of its features), or use another",
        found(.names)
    )]
    Initialisers {
        /// Which table.
        what: &'static str,
        /// How many it has.
        count: u64,
        /// How many it may have.
        most: u64,
        /// Symbols of those that not every module has, as far as the file has symbols.
        names: Vec<String>,
    },
    /// Its start-up code is not that of the C library.
    #[error("has code of its own in {0}, which would run when it is loaded")]
    Initialiser(&'static str),
    /// Which code a symbol stands for is chosen by other code, when it is loaded or looked up.
    #[error("has code that chooses {0} when it is loaded (IFUNC)")]
    Chosen(String),
    /// A shared library, but no module.
    #[error("is not a microfaas module: it has no section {}", manifest::SECTION)]
    NoManifest,
    /// A module, but not one for this runtime.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The list has this name twice.
    #[error("has two functions named `{0}`")]
    Duplicate(String),
}

fn found(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

/// Reads the manifest of the module at `path`.
///
/// # Errors
/// See [`InspectError`].
///
/// # Cost
/// Reads the whole file.
pub fn inspect(path: &Path) -> Result<Manifest, InspectError> {
    // Asked before opening: opening a pipe waits for its writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(InspectError::NotAFile);
    }
    if metadata.len() > MODULE_BYTES_MAX {
        return Err(InspectError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MODULE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    inspect_bytes(&bytes)
}

/// Reads the manifest of a module whose file has these bytes.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect_bytes(bytes: &[u8]) -> Result<Manifest, InspectError> {
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err(InspectError::NotElf);
    }
    let class = bytes.get(4).copied().ok_or(InspectError::NotElf)?;
    if class == elf::ELFCLASS32.0 {
        return Err(InspectError::Machine);
    }
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(|_| InspectError::NotElf)?;
    let endian = file.endian();
    let header = file.elf_header();
    if endian != Endianness::default() || header.e_machine(endian) != MACHINE {
        return Err(InspectError::Machine);
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err(InspectError::NotShared);
    }
    let section = file.section_by_name(manifest::SECTION).ok_or(InspectError::NoManifest)?;
    loading::check(&file, bytes)?;
    let note = section.data().map_err(|_| InspectError::NotElf)?;
    let functions: Vec<String> = manifest::decode(note)?.map(str::to_owned).collect();
    let mut sorted: Vec<&String> = functions.iter().collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(InspectError::Duplicate(pair[0].clone()));
    }
    Ok(Manifest { abi_version: microfaas_abi::ABI_VERSION, functions })
}

#[cfg(target_arch = "x86_64")]
const MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: elf::Machine = elf::EM_AARCH64;
