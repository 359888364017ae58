//! One loaded copy of a module with its own writable state, and the way back to its state after load and `init`.
//!
//! The writable state of a module is small: data and bss (2.5 KiB for a module with the standard library), the thread-local block (16 bytes), and
//! the heap that `init` made ([`crate::kept`]). All of it is copied once, and copied back after each call. So a lock held when a call was
//! ended, a poisoned mutex, a filled `OnceLock`, a secret in a static are gone before the next call, and no static can point into the emptied
//! arena.
//!
//! An instance whose functions keep their state is reset only after a call that was ended. Its calls allocate from a heap of its own, which is not
//! emptied, since its statics point into it; and while one of them is suspended no other may run.
#![expect(unsafe_code, reason = "raw copies over a loaded library's data")]

use std::ffi::c_void;
use std::ptr::NonNull;

use libc::{c_int, dl_phdr_info, size_t};
use libloading::os::unix::Library;

use crate::arena::{Arena, Image};
use crate::kept::{self, KeptHeap, SavedPages};
use crate::thread_locals;

/// Most writable bytes of a module. Each call's reset copies them, at about 10 GB/s.
pub const WRITABLE_BYTES_MAX: usize = 16 << 20;

/// A writable range and its bytes after load and `init`.
#[derive(Debug)]
struct Segment {
    start: NonNull<u8>,
    copy: Box<[u8]>,
}

/// See the module.
#[derive(Debug)]
pub struct Instance {
    segments: Vec<Segment>,
    heap: Heap,
    /// A suspended call has left its state here.
    held: bool,
    /// Of all segments.
    mapped: usize,
    /// Bytes in the segments.
    segment_bytes: usize,
    /// What the ranges are part of; dropped last.
    library: Library,
}

/// What `init` has allocated, and where calls do.
#[derive(Debug)]
pub enum Heap {
    /// The same before each call; calls have an arena of their own.
    Kept(Box<KeptHeap>),
    /// Calls go on with it: the heap, and how `init` left it.
    Own(Box<(Arena, Image)>),
}

impl Heap {
    /// Takes over the arena in which `init` ran. `stateful`: calls go on with it.
    ///
    /// # Errors
    /// Where pages cannot be made read-only.
    pub fn new(arena: Arena, stateful: bool) -> std::io::Result<Self> {
        if !stateful {
            return KeptHeap::new(arena).map(Self::Kept);
        }
        let image = arena.image();
        Ok(Self::Own(Box::new((arena, image))))
    }
}

/// What the module with a given address has that can be written.
#[derive(Debug, Default)]
pub struct Writable {
    ranges: Vec<(usize, usize)>,
    /// The system's loader's number for its thread-locals; `None` where it has none.
    thread_locals: Option<usize>,
    /// What their block takes, as long as it is not there: its bytes, and as many as it may have to be moved by to lie at its multiple.
    missing: usize,
    /// Of all segments of the module.
    mapped: usize,
}

/// The state of a suspended call's instance. Its memory is used again.
#[derive(Debug, Default)]
pub struct SavedState {
    bytes: Vec<u8>,
    pages: SavedPages,
}

impl Writable {
    /// Finds the writable ranges of the loaded module that contains `address`: writable segments but for what the loader has made read-only, and the calling
    /// thread's thread-local block, once it was [made](Self::make_thread_locals).
    #[must_use]
    pub fn of_module_at(address: usize) -> Self {
        let mut search = Search { address, found: Self::default() };
        // SAFETY: the callback has the right signature and `search` outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
        search.found
    }

    /// Has the system's loader allocate the thread-local block, if there is to be one.
    pub fn make_thread_locals(&self) {
        match self.thread_locals {
            Some(number) => thread_locals::make(number),
            // What has gone before it was loaded is seen to all the same.
            None => thread_locals::settle(),
        }
    }

    /// Bytes that the module with this address takes of the address space; 0 where there is none.
    #[must_use]
    pub fn mapped_bytes_at(address: usize) -> usize {
        Self::of_module_at(address).mapped
    }

    /// Bytes in all ranges and of the thread-local block.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ranges.iter().fold(self.missing, |sum, (_, len)| sum.saturating_add(*len))
    }
}

struct Search {
    address: usize,
    found: Writable,
}

extern "C" fn visit(info: *mut dl_phdr_info, _size: size_t, data: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid record.
    let info = unsafe { &*info };
    // SAFETY: `of_module_at` passes its `Search`, which nobody else uses meanwhile.
    let search = unsafe { &mut *data.cast::<Search>() };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the loader's table has that many entries.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let at = |vaddr: u64| usize::try_from(info.dlpi_addr.wrapping_add(vaddr)).unwrap_or(0);
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(0);
    // The headers are the module's, whose memory may hold anything by now.
    let end = |h: &libc::Elf64_Phdr| at(h.p_vaddr).saturating_add(size(h.p_memsz));
    let loads = || headers.iter().filter(|h| h.p_type == libc::PT_LOAD);
    if !loads().any(|h| (at(h.p_vaddr)..end(h)).contains(&search.address)) {
        return 0;
    }
    search.found.mapped = loads().fold(0, |sum, h| sum.saturating_add(size(h.p_memsz)));
    // The loader has made [start, end) of each RELRO segment read-only, rounded inwards at its end.
    let relro_end = headers
        .iter()
        .filter(|h| h.p_type == libc::PT_GNU_RELRO)
        .map(|h| (at(h.p_vaddr), end(h) & !4095))
        .collect::<Vec<_>>();
    for header in loads().filter(|h| h.p_flags & libc::PF_W != 0) {
        let (mut start, end) = (at(header.p_vaddr), end(header));
        for &(from, to) in &relro_end {
            if from <= start && to > start {
                start = to.min(end);
            }
        }
        if start < end {
            search.found.ranges.push((start, end - start));
        }
    }
    let thread_locals = headers.iter().find(|h| h.p_type == libc::PT_TLS);
    let (thread_local, align) = thread_locals.map_or((0, 0), |h| (size(h.p_memsz), size(h.p_align)));
    if thread_local > 0 && info.dlpi_tls_modid != 0 {
        search.found.thread_locals = Some(info.dlpi_tls_modid);
        if info.dlpi_tls_data.is_null() {
            search.found.missing = thread_local.saturating_add(align.saturating_sub(1));
        } else {
            search.found.ranges.push((info.dlpi_tls_data.addr(), thread_local));
        }
    }
    1
}

impl Instance {
    /// Copies the state as it is now.
    ///
    /// # Safety
    /// `writable` is that of `library`, a module which was attached and initialised, and does not run now.
    #[must_use]
    pub unsafe fn capture(library: Library, writable: &Writable, heap: Heap) -> Self {
        let segments: Vec<_> = writable
            .ranges
            .iter()
            .filter_map(|&(start, len)| {
                let start = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(start))?;
                // SAFETY: the range is mapped and readable, and nothing writes to it meanwhile.
                let copy = unsafe { NonNull::slice_from_raw_parts(start, len).as_ref() }.into();
                Some(Segment { start, copy })
            })
            .collect();
        let segment_bytes = segments.iter().map(|segment: &Segment| segment.copy.len()).sum();
        Self { segments, heap, held: false, mapped: writable.mapped, segment_bytes, library }
    }

    /// Drops the instance and unloads its library. Returns the bytes that the system's loader has kept mapped all the same.
    ///
    /// Thread-local destructors, which would pin the library, are not registered in modules (see the module's `__cxa_thread_atexit_impl`); what does stay is
    /// found here, whatever the cause.
    #[must_use]
    pub fn unload(self) -> usize {
        let Self { segments, heap, library, .. } = self;
        let address = segments.first().map(|segment| segment.start.addr().get());
        drop((segments, heap));
        // Where the loader refuses, the library is there still, which shows below.
        let _ = library.close();
        thread_locals::settle();
        address.map_or(0, Writable::mapped_bytes_at)
    }

    /// Prepares for a call.
    #[inline]
    pub fn enter(&mut self) {
        match &mut self.heap {
            // SAFETY: the heap is in a box that lives as long as the instance, which lives as long as the worker.
            Heap::Kept(kept) => unsafe { kept.make_current() },
            Heap::Own(_) => kept::none_is_current(),
        }
    }

    /// The heap that calls allocate from, where they do not from their own. Valid as long as the instance.
    #[inline]
    pub fn own_heap(&mut self) -> Option<*mut Arena> {
        match &mut self.heap {
            Heap::Kept(_) => None,
            Heap::Own(own) => Some(&raw mut own.0),
        }
    }

    /// Most bytes of that heap.
    #[must_use]
    pub fn own_heap_bytes(&self) -> Option<u64> {
        match &self.heap {
            Heap::Kept(_) => None,
            Heap::Own(own) => Some(own.0.capacity() as u64),
        }
    }

    /// Whether no call may run, since a suspended one has left its state here.
    #[inline]
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Makes the state what it was when it was captured.
    ///
    /// # Safety
    /// No call of this instance runs.
    ///
    /// # Cost
    /// A copy of the writable bytes; 23 ns for 2.6 KiB.
    #[inline]
    pub unsafe fn reset(&mut self) {
        for segment in &self.segments {
            let (from, len) = (segment.copy.as_ptr(), segment.copy.len());
            // SAFETY: the range is the module's own data, of this length; no code of the module runs.
            unsafe { segment.start.as_ptr().copy_from_nonoverlapping(from, len) };
        }
        match &mut self.heap {
            // SAFETY: the caller's promise.
            Heap::Kept(kept) => unsafe { kept.restore() },
            // SAFETY: the statics that pointed into it were just put back.
            Heap::Own(own) => unsafe { own.0.restore(&own.1) },
        }
    }

    /// Keeps the state of a suspended call, and makes the instance fit for another; one that keeps its state is [held](Self::is_held) instead.
    ///
    /// So one loaded copy serves any number of calls at a time: each has the module's statics, thread-locals and `init` heap to itself, since
    /// only one of them runs, and finds them as it left them.
    ///
    /// # Safety
    /// No call of this instance runs.
    pub unsafe fn put_aside(&mut self, into: &mut SavedState) {
        let Heap::Kept(kept) = &mut self.heap else {
            self.held = true;
            return;
        };
        into.bytes.clear();
        into.bytes.reserve_exact(self.segment_bytes);
        for segment in &self.segments {
            let live = NonNull::slice_from_raw_parts(segment.start, segment.copy.len());
            // SAFETY: the range is the module's own data, of this length; no code of the module runs.
            into.bytes.extend_from_slice(unsafe { live.as_ref() });
        }
        // SAFETY: the caller's promise.
        unsafe { kept.put_aside(&mut into.pages) };
        // SAFETY: the caller's promise.
        unsafe { self.reset() };
    }

    /// Brings back what [`put_aside`](Self::put_aside) kept.
    ///
    /// # Safety
    /// No call of this instance runs, and `from` was kept from this instance.
    pub unsafe fn bring_back(&mut self, from: &SavedState) {
        let Heap::Kept(kept) = &mut self.heap else {
            self.held = false;
            return;
        };
        let mut rest = &from.bytes[..];
        for segment in &self.segments {
            let Some((bytes, tail)) = rest.split_at_checked(segment.copy.len()) else { return };
            // SAFETY: the range is the module's own data, of this length; no code of the module runs.
            unsafe { segment.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            rest = tail;
        }
        // SAFETY: the caller's promise.
        unsafe { kept.bring_back(&from.pages) };
    }

    /// Bytes that every reset copies.
    #[must_use]
    pub fn writable_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// Bytes that a reset copies, with the pages of `init`'s heap that calls have written.
    #[inline]
    #[must_use]
    pub fn reset_bytes(&self) -> usize {
        let heap = match &self.heap {
            Heap::Kept(kept) => kept.written_bytes(),
            Heap::Own(own) => own.1.bytes(),
        };
        self.segment_bytes + heap
    }

    /// Bytes that it takes altogether: the image in memory, and what `init` made and each reset restores, twice.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.mapped.saturating_add(self.writable_bytes() + 2 * self.kept_bytes())
    }

    /// Bytes of heap that `init` made.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        match &self.heap {
            Heap::Kept(kept) => kept.bytes(),
            Heap::Own(own) => own.1.bytes(),
        }
    }
}
