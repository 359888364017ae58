//! What the system's loader would do with a module beside mapping it, of which there must be nothing.
//!
//! The loader runs in a worker, but not as a call: on the worker's own stack, and without a call's limits. So it is not to find any code of the module to run: no
//! initialisers but those that every shared library of this toolchain has, no functions that are chosen by others. Nor what the worker's filter would end it for: memory that is
//! writable and executable at a time.
//!
//! All is read from where the loader reads it, program headers and the dynamic table; sections are nothing to it. A file without program headers is none that it
//! would load. That holds for what toolchains make. A file that was made so that its headers contradict each other may be read by the loader in another way, and have code
//! run when it is loaded: in a sealed worker, or a trial, and without a call's limits, until the node ends it after 30 seconds.

use object::elf::{self, Dyn64, ProgramHeader64, Rela64, Sym64};
use object::read::StringTable;
use object::read::elf::{
    Dyn as _, ElfFile64, ElfSymbol64, GnuHashTable, HashTable, ProgramHeader as _, Sym as _,
};
use object::{Endianness, Object as _, ObjectSymbol as _, SymbolKind, pod};

use crate::InspectError;

/// Functions that run when a shared library is loaded, and that are there in each that has the standard library: `frame_dummy` of the C start files, and the
/// standard library's own, which takes note of the arguments.
const INIT_ARRAY_MAX: u64 = 2;
/// Functions that run when it is unloaded: `__do_global_dtors_aux` of the C start files.
const FINI_ARRAY_MAX: u64 = 1;
const POINTER_BYTES: u64 = 8;
/// What these functions have in their names.
const USUAL: [&str; 3] = ["frame_dummy", "really_init", "__do_global_dtors_aux"];
/// So many functions of a table are looked at for their names.
const NAMED_MAX: u64 = 16;

type Elf<'a> = ElfFile64<'a, Endianness>;
type Segments<'a> = &'a [ProgramHeader64<Endianness>];

/// Looks for all that the loader would run or be refused.
pub(crate) fn check(elf: &Elf<'_>, bytes: &[u8]) -> Result<(), InspectError> {
    let (endian, segments) = (elf.endian(), elf.elf_program_headers());
    if segments.is_empty() {
        return Ok(());
    }
    check_segments(endian, segments)?;
    let file = File { endian, bytes, segments, elf };
    check_thread_locals(&file)?;
    let mut is_checked = false;
    for segment in segments {
        let dynamic = segment.dynamic(endian, bytes).map_err(|_| InspectError::NotElf)?;
        let Some(entries) = dynamic else { continue };
        // The loader takes one of several, and to check each of thousands would take for ever.
        if std::mem::replace(&mut is_checked, true) {
            return Err(InspectError::NotElf);
        }
        check_dynamic(&file, entries)?;
    }
    Ok(())
}

fn check_segments(endian: Endianness, segments: Segments<'_>) -> Result<(), InspectError> {
    let both = elf::PF_W.0 | elf::PF_X.0;
    // Without a word about it the loader takes the stack to be executable.
    let mut stack_flags = elf::PF_X.0;
    for segment in segments {
        let flags = segment.p_flags(endian).0;
        match segment.p_type(endian) {
            elf::PT_LOAD if flags & both == both => return Err(InspectError::WritableCode),
            elf::PT_GNU_STACK => stack_flags = flags,
            _ => {}
        }
    }
    if stack_flags & elf::PF_X.0 != 0 {
        return Err(InspectError::ExecutableStack);
    }
    Ok(())
}

/// The loader copies what thread-locals are at first from the module's memory to a block of theirs, in the worker's memory, and looks neither for its end nor for the block's.
/// Of several segments it takes the last, and the worker, which puts the block back after each call, the first.
fn check_thread_locals(file: &File<'_>) -> Result<(), InspectError> {
    let endian = file.endian;
    let mut segments = file.segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_TLS);
    let Some(segment) = segments.next() else { return Ok(()) };
    let (copied, block) = (segment.p_filesz(endian), segment.p_memsz(endian));
    let has = |bytes: &[u8]| bytes.len() as u64 >= copied;
    let is_there = copied == 0 || file.at(segment.p_vaddr(endian)).is_some_and(has);
    if is_there && copied <= block && segments.next().is_none() { Ok(()) } else { Err(InspectError::NotElf) }
}

/// The file as the loader maps it.
struct File<'a> {
    endian: Endianness,
    bytes: &'a [u8],
    segments: Segments<'a>,
    /// For names alone.
    elf: &'a Elf<'a>,
}

impl<'a> File<'a> {
    /// What lies at this address and behind it, up to the end of its segment.
    fn at(&self, address: u64) -> Option<&'a [u8]> {
        self.segments.iter().filter(|segment| segment.p_type(self.endian) == elf::PT_LOAD).find_map(
            |segment| {
                let data = segment.data(self.endian, self.bytes).ok()?;
                let offset = usize::try_from(address.checked_sub(segment.p_vaddr(self.endian))?).ok()?;
                data.get(offset..).filter(|rest| !rest.is_empty())
            },
        )
    }

    /// A table at this address.
    fn table<T: pod::Pod>(&self, address: u64, count: u64) -> Result<&'a [T], InspectError> {
        let count = usize::try_from(count).map_err(|_| InspectError::NotElf)?;
        let bytes = self.at(address).ok_or(InspectError::NotElf)?;
        pod::slice_from_bytes(bytes, count).map(|(table, _)| table).map_err(|()| InspectError::NotElf)
    }
}

fn check_dynamic(file: &File<'_>, entries: &[Dyn64<Endianness>]) -> Result<(), InspectError> {
    let endian = file.endian;
    let used = || entries.iter().take_while(|entry| entry.tag(endian) != elf::DT_NULL);
    // Of an entry that is there twice the loader takes the last.
    let get = |tag| used().filter(|entry| entry.tag(endian) == tag).map(|entry| entry.val(endian)).last();

    if get(elf::DT_TEXTREL).is_some()
        || get(elf::DT_FLAGS).is_some_and(|flags| flags & elf::DF_TEXTREL.0 != 0)
    {
        return Err(InspectError::TextRelocations);
    }
    for (table, size, what, most) in [
        (elf::DT_PREINIT_ARRAY, elf::DT_PREINIT_ARRAYSZ, "DT_PREINIT_ARRAY", 0),
        (elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ, "DT_INIT_ARRAY", INIT_ARRAY_MAX),
        (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ, "DT_FINI_ARRAY", FINI_ARRAY_MAX),
    ] {
        let count = get(size).unwrap_or(0).div_ceil(POINTER_BYTES);
        if count > most {
            let names = get(table).map_or_else(Vec::new, |table| names(file, &get, table, count));
            return Err(InspectError::Initialisers { what, count, most, names });
        }
    }
    for (tag, what, code) in [(elf::DT_INIT, "DT_INIT", INIT_CODE), (elf::DT_FINI, "DT_FINI", FINI_CODE)] {
        if let Some(address) = get(tag)
            && !file.at(address).is_some_and(|bytes| is_code(bytes, code))
        {
            return Err(InspectError::Initialiser(what));
        }
    }
    for (table, size) in [(elf::DT_RELA, elf::DT_RELASZ), (elf::DT_JMPREL, elf::DT_PLTRELSZ)] {
        let (Some(address), Some(size)) = (get(table), get(size)) else { continue };
        let relocations: &[Rela64<Endianness>] =
            file.table(address, size / size_of::<Rela64<Endianness>>() as u64)?;
        if relocations.iter().any(|relocation| relocation.r_type(endian, false) == IRELATIVE) {
            return Err(InspectError::Chosen("a function of its own".to_owned()));
        }
    }
    check_symbols(file, &get)
}

/// What the functions of a table are called that not every module has.
fn names(
    file: &File<'_>,
    get: &impl Fn(elf::DynamicTag) -> Option<u64>,
    table: u64,
    count: u64,
) -> Vec<String> {
    let endian = file.endian;
    let relocations = get(elf::DT_RELA).zip(get(elf::DT_RELASZ)).and_then(|(address, size)| {
        file.table::<Rela64<Endianness>>(address, size / size_of::<Rela64<Endianness>>() as u64).ok()
    });
    let name = |entry: u64| {
        let at = table.checked_add(entry * POINTER_BYTES)?;
        // Packed relocations leave the address in the file.
        let in_place = || file.at(at)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let relocation = relocations.unwrap_or_default().iter().find(|r| r.r_offset.get(endian) == at);
        let address = relocation.map_or_else(in_place, |r| Some(r.r_addend.get(endian).cast_unsigned()))?;
        let is_it = |symbol: &ElfSymbol64<'_, '_, Endianness>| {
            symbol.address() == address && symbol.kind() == SymbolKind::Text
        };
        let symbol = file.elf.symbols().find(is_it)?;
        symbol.name().ok().map(str::to_owned)
    };
    let is_own = |name: &String| !USUAL.iter().any(|usual| name.contains(usual));
    (0..count.min(NAMED_MAX)).filter_map(name).filter(is_own).collect()
}

/// Looking up a symbol that stands for a choice runs the code that chooses.
fn check_symbols(file: &File<'_>, get: &impl Fn(elf::DynamicTag) -> Option<u64>) -> Result<(), InspectError> {
    let endian = file.endian;
    let Some(address) = get(elf::DT_SYMTAB) else { return Ok(()) };
    // The count is in no entry of its own. Without either table there are no symbols to be found.
    let hash = get(elf::DT_HASH).and_then(|address| file.at(address));
    let gnu_hash = get(elf::DT_GNU_HASH).and_then(|address| file.at(address));
    let counts = [
        hash.and_then(|bytes| HashTable::<Header>::parse(endian, bytes).ok())
            .map(|h| h.symbol_table_length()),
        gnu_hash
            .and_then(|bytes| GnuHashTable::<Header>::parse(endian, bytes).ok()?.symbol_table_length(endian)),
    ];
    let Some(count) = counts.into_iter().flatten().max() else { return Ok(()) };
    let symbols: &[Sym64<Endianness>] = file.table(address, count.into())?;
    // One that another library is to provide has the type that it had there at best.
    let is_chosen = |symbol: &&Sym64<Endianness>| {
        symbol.st_type() == elf::STT_GNU_IFUNC && symbol.st_shndx(endian) != elf::SHN_UNDEF
    };
    let Some(symbol) = symbols.iter().find(is_chosen) else { return Ok(()) };
    let strings = get(elf::DT_STRTAB).and_then(|address| file.at(address)).unwrap_or(&[]);
    let strings = StringTable::new(strings, 0, strings.len() as u64);
    let name = symbol.name(endian, strings).unwrap_or_default();
    Err(InspectError::Chosen(String::from_utf8_lossy(name).into_owned()))
}

type Header = elf::FileHeader64<Endianness>;

/// Start-up code as the C start files have it, which does nothing unless the library is profiled; `None` is any byte.
type Code = &'static [Option<u8>];

/// Whether these are the bytes, with or without the mark of a place that may be jumped to.
fn is_code(bytes: &[u8], code: Code) -> bool {
    if code.is_empty() {
        return true;
    }
    let bytes = bytes.strip_prefix(&LANDING).unwrap_or(bytes);
    bytes.len() >= code.len()
        && code.iter().zip(bytes).all(|(code, byte)| code.is_none_or(|code| code == *byte))
}

#[cfg(target_arch = "x86_64")]
use x86_64::{FINI_CODE, INIT_CODE, IRELATIVE, LANDING};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::Code;
    use object::elf;

    pub(super) const IRELATIVE: elf::RelocationType = elf::R_X86_64_IRELATIVE;
    /// `endbr64`
    pub(super) const LANDING: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

    const fn any<const N: usize>(bytes: [i16; N]) -> [Option<u8>; N] {
        let mut code = [None; N];
        let mut i = 0;
        while i < N {
            if bytes[i] >= 0 {
                code[i] = Some(bytes[i].to_le_bytes()[0]);
            }
            i += 1;
        }
        code
    }

    /// `sub rsp, 8; mov rax, [rip + __gmon_start__]; test rax, rax; je 1f; call rax; 1: add rsp, 8; ret`
    pub(super) const INIT_CODE: Code = &any([
        0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x05, -1, -1, -1, -1, 0x48, 0x85, 0xc0, 0x74, 0x02, 0xff, 0xd0,
        0x48, 0x83, 0xc4, 0x08, 0xc3,
    ]);
    /// `sub rsp, 8; add rsp, 8; ret`
    pub(super) const FINI_CODE: Code = &any([0x48, 0x83, 0xec, 0x08, 0x48, 0x83, 0xc4, 0x08, 0xc3]);
}

#[cfg(target_arch = "aarch64")]
use aarch64::{FINI_CODE, INIT_CODE, IRELATIVE, LANDING};

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::Code;
    use object::elf;

    pub(super) const IRELATIVE: elf::RelocationType = elf::R_AARCH64_IRELATIVE;
    pub(super) const LANDING: [u8; 4] = [0; 4];
    /// Not examined: no worker runs there.
    pub(super) const INIT_CODE: Code = &[];
    pub(super) const FINI_CODE: Code = &[];
}
