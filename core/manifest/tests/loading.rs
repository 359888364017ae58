//! Modules of which the system's loader would run code, or that it could not load in a worker.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use microfaas_abi::manifest::{self, SECTION};
use microfaas_manifest::inspect_bytes;
use object::elf::{self, DynamicTag};
use object::write::{Object, StandardSegment, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

const NAMES: &[&str] = &["hello"];
const NOTE: [u8; manifest::encoded_len(NAMES)] = manifest::encode(NAMES);

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;

/// `_init` and `_fini` as the C start files have them.
const INIT: [u8; 23] = [
    0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x05, 0x95, 0x02, 0x04, 0x00, 0x48, 0x85, 0xc0, 0x74, 0x02, 0xff,
    0xd0, 0x48, 0x83, 0xc4, 0x08, 0xc3,
];
const FINI: [u8; 9] = [0x48, 0x83, 0xec, 0x08, 0x48, 0x83, 0xc4, 0x08, 0xc3];

/// A module with program headers: one segment with everything, the dynamic table, and what is said of the stack.
#[derive(Clone)]
struct Module {
    load: u32,
    stack: Option<u32>,
    /// Entries of the dynamic table. A value of `AT + n` is the address of the n-th byte of `data`.
    dynamic: Vec<(DynamicTag, u64)>,
    data: Vec<u8>,
}

const AT: u64 = 1 << 40;

impl Module {
    /// As the toolchain makes them.
    fn ordinary() -> Self {
        let (init, fini) = (AT, AT + 32);
        let mut data = INIT.to_vec();
        data.resize(32, 0);
        data.extend(FINI);
        data.resize(64, 0);
        let dynamic = vec![
            (elf::DT_INIT, init),
            (elf::DT_FINI, fini),
            (elf::DT_INIT_ARRAYSZ, 16),
            (elf::DT_FINI_ARRAYSZ, 8),
            (elf::DT_FLAGS, 10),
        ];
        Self { load: READ | EXECUTE, stack: Some(READ | WRITE), dynamic, data }
    }

    fn with(mut self, tag: DynamicTag, value: u64) -> Self {
        self.dynamic.retain(|(other, _)| *other != tag);
        self.dynamic.push((tag, value));
        self
    }

    /// Adds data, whose address is then the value of an entry.
    fn with_data(mut self, tag: DynamicTag, data: &[u8]) -> Self {
        let at = AT + self.data.len() as u64;
        self.data.extend(data);
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        self.with(tag, at)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let segment = object.segment_name(StandardSegment::Data).to_vec();
        let section = object.add_section(segment, SECTION.as_bytes().to_vec(), SectionKind::Note);
        object.append_section_data(section, &NOTE, 4);
        for (name, value) in [("frame_dummy", 0x1000), ("of_a_dependency", 0x2000)] {
            object.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value,
                size: 8,
                kind: SymbolKind::Text,
                scope: SymbolScope::Compilation,
                weak: false,
                section: SymbolSection::Absolute,
                flags: SymbolFlags::None,
            });
        }
        let mut bytes = object.write().unwrap();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let data = bytes.len() as u64;
        bytes.extend(&self.data);
        let dynamic = bytes.len() as u64;
        for (tag, value) in self.dynamic.iter().chain([&(elf::DT_NULL, 0)]) {
            let value = if *value >= AT { value - AT + data } else { *value };
            bytes.extend(tag.0.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        let end = bytes.len() as u64;
        let mut headers =
            vec![(elf::PT_LOAD, self.load, 0, end), (elf::PT_DYNAMIC, READ | WRITE, dynamic, end - dynamic)];
        headers.extend(self.stack.map(|flags| (elf::PT_GNU_STACK, flags, 0, 0)));
        for (kind, flags, offset, len) in &headers {
            bytes.extend(kind.0.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            for word in [*offset, *offset, *offset, *len, *len, 8] {
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes[16..18].copy_from_slice(&elf::ET_DYN.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&end.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(headers.len()).unwrap().to_le_bytes());
        bytes
    }

    /// Why it is refused.
    fn refused(&self) -> String {
        inspect_bytes(&self.bytes()).unwrap_err().to_string()
    }
}

#[test]
fn an_ordinary_module_is_taken() {
    assert_eq!(inspect_bytes(&Module::ordinary().bytes()).unwrap().functions, NAMES);
    // With marks for indirect branches, as other distributions build their start files.
    let marked = |code: &[u8]| [&[0xf3, 0x0f, 0x1e, 0xfa], code].concat();
    let module =
        Module::ordinary().with_data(elf::DT_INIT, &marked(&INIT)).with_data(elf::DT_FINI, &marked(&FINI));
    assert!(inspect_bytes(&module.bytes()).is_ok());
    // Without any.
    assert!(inspect_bytes(&Module { dynamic: Vec::new(), ..Module::ordinary() }.bytes()).is_ok());
}

/// Each would be gone through from one end to the other, and a file has room for thousands.
#[test]
fn a_second_dynamic_table_is_refused() {
    const HEADER: usize = 56;
    let mut bytes = Module::ordinary().bytes();
    let dynamic = bytes.len() - 2 * HEADER;
    bytes.extend_from_within(dynamic..dynamic + HEADER);
    bytes[56] += 1;
    assert_eq!(inspect_bytes(&bytes).unwrap_err().to_string(), "is not an ELF file");
}

#[test]
fn thread_locals_that_are_not_there_or_have_no_room_are_refused() {
    let inspect_all = |segments: &[[u64; 3]]| {
        let mut bytes = Module::ordinary().bytes();
        for &[at, copied, block] in segments {
            bytes.extend(elf::PT_TLS.0.to_le_bytes());
            bytes.extend(READ.to_le_bytes());
            for word in [at, at, at, copied, block, 8] {
                bytes.extend(word.to_le_bytes());
            }
            bytes[56] += 1;
        }
        inspect_bytes(&bytes).map(|_| ()).map_err(|error| error.to_string())
    };
    let inspect = |at, copied, block| inspect_all(&[[at, copied, block]]);
    let broken = Err("is not an ELF file".to_owned());
    assert_eq!(inspect(0, 64, 64), Ok(()));
    assert_eq!(inspect(1 << 40, 0, 64), Ok(()), "all of them begin as zero");
    assert_eq!(inspect(0, 65, 64), broken, "more than the block has room for");
    assert_eq!(inspect(0, 1 << 30, 1 << 30), broken, "beyond the end of the segment");
    assert_eq!(inspect(1 << 40, 64, 64), broken, "nowhere");
    assert_eq!(inspect(u64::MAX, 64, 64), broken);
    assert_eq!(inspect_all(&[[0, 0, 8], [0, 0, 64]]), broken, "which of them counts, nobody says");
}

#[test]
fn memory_that_no_worker_may_have_is_refused() {
    let module = Module::ordinary();
    let stack = "asks for an executable stack (PT_GNU_STACK)";
    assert_eq!(Module { stack: Some(READ | WRITE | EXECUTE), ..module.clone() }.refused(), stack);
    assert_eq!(Module { stack: None, ..module.clone() }.refused(), stack);
    let writable = Module { load: READ | WRITE | EXECUTE, ..module.clone() };
    assert_eq!(writable.refused(), "has memory that is both writable and executable");
    let text = "has relocations in its code (DT_TEXTREL): it is not built as position-independent code";
    assert_eq!(module.clone().with(elf::DT_TEXTREL, 0).refused(), text);
    assert_eq!(module.with(elf::DT_FLAGS, 4 | 8).refused(), text);
}

#[test]
fn constructors_and_destructors_are_refused() {
    let refused = |tag, bytes| Module::ordinary().with(tag, bytes).refused();
    let constructor = refused(elf::DT_INIT_ARRAYSZ, 24);
    assert!(constructor.starts_with("has 3 functions in DT_INIT_ARRAY, allowed are 2, "), "{constructor}");
    assert!(constructor.contains("; switch the dependency's constructor off"), "{constructor}");
    // Where the file has symbols, and the addresses in the table are relocated or there already.
    let with = Module::ordinary().with(elf::DT_INIT_ARRAYSZ, 24);
    let table = [0x1000u64, 0x2000, 0x3000].map(u64::to_le_bytes).concat();
    let in_place = with.clone().with_data(elf::DT_INIT_ARRAY, &table).refused();
    let relocated = with.with(elf::DT_INIT_ARRAY, 0xff8).with(elf::DT_RELASZ, 24);
    let relocated = relocated.with_data(elf::DT_RELA, &relocation(8)).refused();
    for named in [in_place, relocated] {
        assert!(named.contains("when it is loaded or unloaded (of_a_dependency); switch"), "{named}");
    }
    let destructor = refused(elf::DT_FINI_ARRAYSZ, 16);
    assert!(destructor.starts_with("has 2 functions in DT_FINI_ARRAY, allowed are 1, "), "{destructor}");
    assert!(refused(elf::DT_PREINIT_ARRAYSZ, 8).starts_with("has 1 functions in DT_PREINIT_ARRAY"));
    assert!(refused(elf::DT_INIT_ARRAYSZ, AT - 8).starts_with("has 137438953471 functions"));
}

#[test]
fn start_up_code_of_its_own_is_refused() {
    for (tag, name, code) in [(elf::DT_INIT, "DT_INIT", &INIT[..]), (elf::DT_FINI, "DT_FINI", &FINI[..])] {
        let text = format!("has code of its own in {name}, which would run when it is loaded");
        // The offset of what it calls is the linker's, all else is as it is.
        let offset = if tag == elf::DT_INIT { 7..11 } else { 0..0 };
        for at in (0..code.len()).filter(|at| !offset.contains(at)) {
            let mut other = code.to_vec();
            other[at] ^= 1;
            assert_eq!(Module::ordinary().with_data(tag, &other).refused(), text, "byte {at}");
        }
        assert_eq!(Module::ordinary().with(tag, 1 << 30).refused(), text, "nowhere");
        assert_eq!(Module::ordinary().with_data(tag, &[]).with(tag, u64::MAX).refused(), text);
    }
}

/// An entry of a relocation table.
fn relocation(kind: u32) -> Vec<u8> {
    [0x1000u64, kind.into(), 0x2000].map(u64::to_le_bytes).concat()
}

#[test]
fn code_that_is_chosen_when_it_is_loaded_is_refused() {
    let own = "has code that chooses a function of its own when it is loaded (IFUNC)";
    let relocations = [relocation(8), relocation(elf::R_X86_64_IRELATIVE.0)].concat();
    for (table, size) in [(elf::DT_RELA, elf::DT_RELASZ), (elf::DT_JMPREL, elf::DT_PLTRELSZ)] {
        let module = Module::ordinary().with_data(table, &relocations);
        assert_eq!(module.clone().with(size, 48).refused(), own);
        assert!(inspect_bytes(&module.clone().with(size, 24).bytes()).is_ok(), "the first alone is harmless");
        assert_eq!(module.with(size, 1 << 40).refused(), "is not an ELF file");
    }
    // Found by its name. The table of symbols begins with an empty one; the hash table says how many there are.
    let symbol = |kind: u8, section: u8| {
        [1u32.to_le_bytes().as_slice(), &[1 << 4 | kind, 0, section, 0], &[0; 16]].concat()
    };
    let with = |kind, section| {
        Module::ordinary()
            .with_data(elf::DT_SYMTAB, &[vec![0; 24], symbol(kind, section)].concat())
            .with_data(elf::DT_STRTAB, b"\0microfaas_module\0")
            .with_data(elf::DT_HASH, &[1u32, 2, 1, 0, 0].map(u32::to_le_bytes).concat())
    };
    assert!(inspect_bytes(&with(1, 1).bytes()).is_ok());
    assert_eq!(with(10, 1).refused(), "has code that chooses microfaas_module when it is loaded (IFUNC)");
    // Some linkers copy the type that `memcpy` has in the C library.
    assert!(inspect_bytes(&with(10, 0).bytes()).is_ok(), "asked for, and not provided");
}

#[test]
fn no_damage_makes_it_panic() {
    let relocations = relocation(8);
    let good = Module::ordinary()
        .with_data(elf::DT_RELA, &relocations)
        .with(elf::DT_RELASZ, 24)
        .with_data(elf::DT_SYMTAB, &[0; 48])
        .with_data(elf::DT_GNU_HASH, &[1u32, 1, 1, 6, 0, 0, 1, 1].map(u32::to_le_bytes).concat())
        .bytes();
    assert!(inspect_bytes(&good).is_ok());
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = good.clone();
            damaged[at] = value;
            let _ = inspect_bytes(&damaged);
            let _ = inspect_bytes(&good[..at]);
        }
    }
}
