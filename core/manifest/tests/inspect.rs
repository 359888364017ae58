//! Files that are modules, files that are not, and files that lie.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::fs;
use std::path::Path;

use microfaas_abi::manifest::{self, HEADER_BYTES, ManifestError, SECTION};
use microfaas_manifest::{InspectError, inspect, inspect_bytes};
use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, elf};

const NAMES: &[&str] = &["hello", "jwt-verify"];
const NOTE: [u8; manifest::encoded_len(NAMES)] = manifest::encode(NAMES);
const TWICE: &[&str] = &["a", "b", "a"];
const NOTE_TWICE: [u8; manifest::encoded_len(TWICE)] = manifest::encode(TWICE);
/// Offset of `e_type` in an ELF header.
const E_TYPE: usize = 16;

/// An ELF file with this section; marked as a shared library, which is all that is looked at.
fn elf_file(architecture: Architecture, section: &str, note: &[u8]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, architecture, object::Endianness::Little);
    let segment = object.segment_name(StandardSegment::Data).to_vec();
    let id = object.add_section(segment, section.as_bytes().to_vec(), SectionKind::Note);
    object.append_section_data(id, note, 4);
    let mut bytes = object.write().unwrap();
    bytes[E_TYPE..E_TYPE + 2].copy_from_slice(&elf::ET_DYN.0.to_le_bytes());
    bytes
}

fn here() -> Architecture {
    assert_eq!(Endianness::default(), Endianness::Little);
    if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 }
}

fn module(note: &[u8]) -> Vec<u8> {
    elf_file(here(), SECTION, note)
}

#[test]
fn a_module_says_what_it_has() {
    let manifest = inspect_bytes(&module(&NOTE)).unwrap();
    assert_eq!(
        (manifest.abi_version, manifest.functions),
        (microfaas_abi::ABI_VERSION, vec!["hello".to_owned(), "jwt-verify".to_owned()])
    );
}

#[test]
fn other_files_are_told_apart() {
    let mut object_file = module(&NOTE);
    object_file[E_TYPE..E_TYPE + 2].copy_from_slice(&elf::ET_REL.0.to_le_bytes());
    let mut other_abi = NOTE;
    other_abi[HEADER_BYTES] = 99;
    let mut other_owner = NOTE;
    other_owner[12] = b'M';
    let text = |bytes: &[u8]| inspect_bytes(bytes).unwrap_err().to_string();
    assert_eq!(text(b""), "is not an ELF file");
    assert_eq!(text(b"#!/bin/sh\n"), "is not an ELF file");
    assert_eq!(text(b"\x7fELF"), "is not an ELF file");
    assert_eq!(text(&elf_file(Architecture::I386, SECTION, &NOTE)), "is built for another kind of machine");
    assert_eq!(text(&elf_file(Architecture::S390x, SECTION, &NOTE)), "is built for another kind of machine");
    assert_eq!(text(&object_file), "is not a shared library");
    assert_eq!(
        text(&elf_file(here(), ".note.other", &NOTE)),
        "is not a microfaas module: it has no section .note.microfaas"
    );
    assert_eq!(text(&module(&other_abi)), "built for module ABI 99, this runtime has 2; build it again");
    assert!(matches!(
        inspect_bytes(&module(&other_owner)),
        Err(InspectError::Manifest(ManifestError::NotOurs))
    ));
    assert_eq!(text(&module(&NOTE_TWICE)), "has two functions named `a`");
}

#[test]
fn no_damage_makes_it_panic() {
    let good = module(&NOTE);
    for len in 0..good.len() {
        // Some ends are behind all that is needed: then the answer is the same.
        if let Ok(manifest) = inspect_bytes(&good[..len]) {
            assert_eq!(manifest.functions, NAMES);
        }
    }
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = good.clone();
            damaged[at] = value;
            let _ = inspect_bytes(&damaged);
        }
    }
    assert!(inspect_bytes(&good[..good.len() / 2]).is_err());
}

#[test]
fn files_are_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.so");
    fs::write(&path, module(&NOTE)).unwrap();
    assert_eq!(inspect(&path).unwrap().functions, NAMES);
    assert!(matches!(inspect(dir.path()), Err(InspectError::NotAFile)));
    assert!(matches!(inspect(Path::new("/dev/null")), Err(InspectError::NotAFile)));
    let absent = inspect(&dir.path().join("absent.so")).unwrap_err();
    assert!(absent.to_string().starts_with("cannot be read: "), "{absent}");
}
