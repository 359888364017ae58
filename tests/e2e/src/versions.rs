//! Any number of versions of the module of `tests/functions/versions`, and of modules like that of `tests/functions/numbered`: each is built once.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use microfaas_abi::manifest;
use object::elf;
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

const MARKER: &[u8] = b"microfaas-version-marker:";

/// The module's bytes as they were built.
///
/// # Panics
/// Where it cannot be built.
fn built() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| build("versions"))
}

fn build(name: &str) -> Vec<u8> {
    let crate_dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../functions").join(name);
    let programs = crate::program("microfaas-worker");
    let scratch = programs.parent().expect("a program is in a folder").join("e2e-modules");
    let mut options = microfaas_build::BuildOptions::new([crate_dir], scratch.join("out"));
    options.target_dir = Some(scratch.join("target"));
    let built = microfaas_build::build(&options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    std::fs::read(&built[0].path).expect("what was built can be read")
}

/// Version `number` of the module; `init` does what `letter` says, nothing special for `-`.
///
/// # Panics
/// Where there is no such version.
#[must_use]
pub fn image(number: u32, letter: char) -> Vec<u8> {
    let mut bytes = built().to_vec();
    let at = bytes.windows(MARKER.len()).position(|part| part == MARKER).expect("the module has its marker");
    let text = format!("{number:04}{letter}");
    bytes[at + MARKER.len()..][..5].copy_from_slice(text.as_bytes());
    bytes
}

/// Version 1, said to be for another ABI.
///
/// # Panics
/// Where its manifest is not found.
#[must_use]
pub fn of_another_abi() -> Vec<u8> {
    let mut bytes = built().to_vec();
    let (owner, version) = (manifest::OWNER, microfaas_abi::ABI_VERSION.to_le_bytes());
    let is_note = |at: &usize| bytes[*at..].starts_with(owner) && bytes[at + HEAD..].starts_with(&version);
    let at = (0..bytes.len() - HEAD - version.len()).find(is_note).expect("the module has its manifest");
    bytes[at + HEAD] = 99;
    bytes
}

/// A module that the system's loader does not let go of any more, and that takes so many bytes of address space besides.
///
/// # Panics
/// Where it is no module of ours.
#[must_use]
pub fn pinned(mut bytes: Vec<u8>, ballast: u64) -> Vec<u8> {
    type Elf<'data> = object::read::elf::ElfFile64<'data>;
    let (mut flags_at, mut note_at) = (None, None);
    {
        let file = Elf::parse(&bytes[..]).expect("a module is an ELF file");
        let endian = file.endian();
        let table = usize::try_from(file.elf_header().e_phoff(endian)).expect("it lies in the file");
        for (index, header) in file.elf_program_headers().iter().enumerate() {
            if header.p_type(endian) == elf::PT_NOTE {
                note_at = Some(table + index * size_of_val(header));
            }
            let entries = header.dynamic(endian, &bytes[..]).expect("its own table");
            let find = |(at, entry): (usize, &elf::Dyn64<_>)| {
                (entry.d_tag(endian) == elf::DT_FLAGS_1).then_some(at * size_of_val(entry) + size_of::<u64>())
            };
            let found = entries.and_then(|entries| entries.iter().enumerate().find_map(find));
            let start = usize::try_from(header.p_offset(endian)).expect("it lies in the file");
            flags_at = found.map(|at| start + at).or(flags_at);
        }
    }
    let flags = flags_at.expect("it has flags for the loader");
    bytes[flags] |= u8::try_from(elf::DF_1_NODELETE.0).expect("one of the first bits");
    // The segment of notes, which nobody reads by that, is one without content behind all others instead.
    let at = note_at.expect("it has notes");
    bytes[at..at + 4].copy_from_slice(&elf::PT_LOAD.0.to_le_bytes());
    bytes[at + 4..at + 8].copy_from_slice(&elf::PF_R.0.to_le_bytes());
    let (offset, address, in_file, align) = (0, 1 << 24, 0, 4096);
    for (word, value) in [offset, address, address, in_file, ballast, align].into_iter().enumerate() {
        let at = at + 8 + word * 8;
        bytes[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
    }
    bytes
}

/// From the owner in a note to the ABI version.
const HEAD: usize = manifest::HEADER_BYTES - 12;

/// Writes version `number` as `versions.so` into a directory, whole at once as deploying wants it.
///
/// # Panics
/// Where it cannot be written.
pub fn write(directory: &Path, number: u32, letter: char) -> PathBuf {
    put(directory, "versions.so", &image(number, letter))
}

/// Writes a file whole at once.
///
/// # Panics
/// Where it cannot be written.
pub fn put(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let (half, whole) = (directory.join(format!("{name}.half")), directory.join(name));
    std::fs::write(&half, bytes).expect("writing into a directory for tests");
    std::fs::rename(half, &whole).expect("renaming in a directory for tests");
    whole
}

/// A module with one function, [`numbered_name`], which only this number has and which answers [`numbered_answer`].
///
/// # Panics
/// Where it cannot be built.
#[must_use]
pub fn numbered(number: u32) -> Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = BYTES.get_or_init(|| build("numbered")).clone();
    for (from, to) in
        [("numbered_00000000", numbered_name(number)), ("version-00000000", numbered_answer(number))]
    {
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(from.len()).position(|part| part == from.as_bytes()) {
            at += found;
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            at += to.len();
        }
    }
    bytes
}

/// The function of a numbered module.
#[must_use]
pub fn numbered_name(number: u32) -> String {
    format!("numbered_{number:08}")
}

/// What it answers.
#[must_use]
pub fn numbered_answer(number: u32) -> String {
    format!("version-{number:08}")
}
