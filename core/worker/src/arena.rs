//! A call's heap: one range of memory, emptied in one step.
//!
//! Blocks are cut from the bottom up and go back to lists by size class: 16-byte steps up to 128, then four classes for
//! each doubling, so at most a quarter of a block is waste. A list is known to be non-empty by a bit in one
//! word; emptying the arena clears that word and the two marks, whatever was in the lists. The block that was cut last can
//! grow, shrink and go back in place, which is what a growing vector does.
//!
//! Blocks lie at multiples of 16. One that is to lie at a multiple of more is cut there, and what is skipped is listed; or it is made of a listed block with so many bytes
//! more that it can be cut out of that. Of its own class it takes the first few that are listed, if one of them happens to lie well: those of the same size and
//! alignment do, so a program that takes and frees them does not use the arena up.
//!
//! Where nothing fits any more, neighbours that are free become one (`merge`).
//!
//! Nothing here survives a call, so it need not be consistent when a call is ended inside it: [`reset`](Arena::reset)
//! looks at nothing that a call could have left half done, but for `dirty`, which only grows and grows first.
//!
//! Memory above the `dirty` mark has not been handed out since it was last zero, so it is zero; `reset` makes the rest so again.
//! What one call wrote, the next cannot find.
#![expect(unsafe_code, reason = "an allocator")]

mod classes;
mod merge;
#[cfg(test)]
mod tests;

use std::io;
use std::num::NonZeroUsize;
use std::ptr::{NonNull, null_mut};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

use classes::{CLASSES, GRANULE, class_bytes, class_of, largest_class_within};

/// Least arena.
pub const ARENA_BYTES_MIN: usize = 64 << 10;
/// Most.
pub const ARENA_BYTES_MAX: usize = 64 << 30;
/// Up to here `reset` writes zeros, which costs about 7 us a MiB; what lies above goes back to the kernel, which costs a system call and
/// 1.3 us for each page when it is touched again.
pub const KEEP_BYTES: usize = 4 << 20;

/// How many blocks of a list are looked at for one that lies at the right place.
const LOOKS: usize = 8;

/// A bump arena with free lists. See the module.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    capacity: usize,
    /// Where the next block is cut.
    used: usize,
    /// All bytes from here on are zero. Moved before the memory below it is handed out.
    dirty: usize,
    /// Which lists are non-empty.
    filled: u128,
    lists: [*mut u8; CLASSES],
}

/// All that an arena holds, to go back to.
#[derive(Debug)]
pub struct Image {
    bytes: Box<[u8]>,
    used: usize,
    filled: u128,
    lists: [*mut u8; CLASSES],
}

impl Image {
    /// Bytes up to the highest that was handed out.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl Arena {
    /// Reserves an arena. Pages come when touched.
    ///
    /// # Errors
    /// `InvalidInput` outside [`ARENA_BYTES_MIN`] to [`ARENA_BYTES_MAX`] or no multiple of 4096; else the kernel's.
    pub fn new(capacity: usize) -> io::Result<Self> {
        if !(ARENA_BYTES_MIN..=ARENA_BYTES_MAX).contains(&capacity) || !capacity.is_multiple_of(4096) {
            let text = format!(
                "arena of {capacity} bytes, allowed are multiples of 4096 from {ARENA_BYTES_MIN} to {ARENA_BYTES_MAX}"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let length = NonZeroUsize::new(capacity).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping wherever the kernel likes replaces nothing.
        let base = unsafe { mmap_anonymous(None, length, access, flags) }?.cast();
        Ok(Self { base, capacity, used: 0, dirty: 0, filled: 0, lists: [null_mut(); CLASSES] })
    }

    /// A block of at least `size` bytes, aligned to `align`, zeroed where asked for; null when there is no room.
    ///
    /// # Cost
    /// A few nanoseconds; page faults the first time that memory is touched.
    pub fn alloc(&mut self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        if size > self.capacity {
            return null_mut();
        }
        let (class, bytes) = class_of(size);
        let block = if align <= GRANULE { self.take(class) } else { self.take_aligned(class, align) };
        if !block.is_null() {
            if zeroed {
                // SAFETY: a block of this class has `bytes >= size` bytes and is nobody's.
                unsafe { block.write_bytes(0, size) };
            }
            return block;
        }
        let block = self.make(bytes, align, size, zeroed);
        if block.is_null() && bytes <= self.capacity && self.merge() {
            return self.make(bytes, align, size, zeroed);
        }
        block
    }

    /// A block that is not listed as such: cut at the top, or out of a larger one.
    fn make(&mut self, bytes: usize, align: usize, size: usize, zeroed: bool) -> *mut u8 {
        let block = self.cut(bytes, align, zeroed);
        if block.is_null() { self.split(bytes, align, size, zeroed) } else { block }
    }

    /// Pops a block of exactly this class.
    fn take(&mut self, class: usize) -> *mut u8 {
        if self.filled >> class & 1 == 0 {
            return null_mut();
        }
        let block = self.lists[class];
        // SAFETY: a listed block has at least 16 bytes, whose first hold the next block of the list.
        let next = unsafe { block.cast::<*mut u8>().read() };
        self.lists[class] = next;
        if next.is_null() {
            self.filled &= !(1 << class);
        }
        block
    }

    /// Takes a block of exactly this class that lies at a multiple of `align`, if one of the first few does.
    fn take_aligned(&mut self, class: usize, align: usize) -> *mut u8 {
        if self.filled >> class & 1 == 0 {
            return null_mut();
        }
        let mut before: *mut u8 = null_mut();
        let mut block = self.lists[class];
        for _ in 0..LOOKS {
            if block.is_null() {
                break;
            }
            // SAFETY: a listed block has at least 16 bytes, whose first hold the next block of the list.
            let next = unsafe { block.cast::<*mut u8>().read() };
            if block.addr().is_multiple_of(align) {
                if before.is_null() {
                    return self.take(class);
                }
                // SAFETY: as above; `before` is the listed block before this one.
                unsafe { before.cast::<*mut u8>().write(next) };
                return block;
            }
            (before, block) = (block, next);
        }
        null_mut()
    }

    fn put(&mut self, class: usize, block: *mut u8) {
        let next = if self.filled >> class & 1 == 1 { self.lists[class] } else { null_mut() };
        // SAFETY: the block is nobody's, has at least 16 bytes and is aligned to 16.
        unsafe { block.cast::<*mut u8>().write(next) };
        self.lists[class] = block;
        self.filled |= 1 << class;
    }

    /// Cuts a new block at the top.
    fn cut(&mut self, bytes: usize, align: usize, zeroed: bool) -> *mut u8 {
        let base = self.base.addr().get();
        let Some(start) = (base + self.used).checked_next_multiple_of(align.max(GRANULE)) else {
            return null_mut();
        };
        let start = start - base;
        let Some(end) = start.checked_add(bytes).filter(|end| *end <= self.capacity) else {
            return null_mut();
        };
        let stale = self.dirty.saturating_sub(start).min(bytes);
        let skipped = self.used;
        self.dirty = self.dirty.max(end);
        self.used = end;
        if skipped < start {
            // SAFETY: below `start`, so in the mapping; nobody's, and handed out no more.
            self.put_all(unsafe { self.base.as_ptr().add(skipped) }, start - skipped);
        }
        // SAFETY: `start <= end <= capacity`.
        let block = unsafe { self.base.as_ptr().add(start) };
        if zeroed {
            // SAFETY: the block is ours up to `bytes`; above the old mark it is zero already.
            unsafe { block.write_bytes(0, stale) };
        }
        block
    }

    /// Takes a larger block from a list, and lists what is left of it: before it where it is to lie at a multiple of more than 16, and behind it.
    fn split(&mut self, bytes: usize, align: usize, size: usize, zeroed: bool) -> *mut u8 {
        // Wherever such a block lies, there are so many bytes in it from a multiple of `align` on.
        let Some(least) = bytes.checked_add(align.saturating_sub(GRANULE)) else { return null_mut() };
        // A block of a class has all of that class's bytes: where `least` is between two, the next one is the first that is sure to fit.
        let class = if align <= GRANULE { class_of(least).0 + 1 } else { class_of(least).0 };
        let larger = if class < CLASSES { self.filled >> class << class } else { 0 };
        if larger == 0 {
            return null_mut();
        }
        let from = larger.trailing_zeros() as usize;
        let whole = self.take(from);
        let skipped = whole.addr().next_multiple_of(align.max(GRANULE)) - whole.addr();
        // SAFETY: less than `align` bytes are skipped, so `bytes` bytes are left in the block.
        let block = unsafe { whole.add(skipped) };
        self.put_all(whole, skipped);
        // SAFETY: as above.
        self.put_all(unsafe { block.add(bytes) }, class_bytes(from) - skipped - bytes);
        if zeroed {
            // SAFETY: the block has `bytes >= size` bytes.
            unsafe { block.write_bytes(0, size) };
        }
        block
    }

    /// Lists memory that is nobody's, in as few blocks as it takes. It begins at a multiple of 16.
    fn put_all(&mut self, mut start: *mut u8, mut bytes: usize) {
        while bytes >= GRANULE {
            let (class, piece) = largest_class_within(bytes);
            self.put(class, start);
            bytes -= piece;
            // SAFETY: `piece` is at most what was left.
            start = unsafe { start.add(piece) };
        }
    }

    /// Takes a block back. Memory of another arena is left alone.
    ///
    /// # Safety
    /// `block` came from `alloc` or `realloc` with this `size`, of this or another arena, and is not used any more.
    pub unsafe fn dealloc(&mut self, block: *mut u8, size: usize) {
        let Some(start) = self.offset(block) else { return };
        let (class, bytes) = class_of(size);
        if start + bytes == self.used {
            self.used = start;
        } else {
            self.put(class, block);
        }
    }

    fn offset(&self, block: *mut u8) -> Option<usize> {
        let offset = block.addr().wrapping_sub(self.base.addr().get());
        (offset < self.used).then_some(offset)
    }

    /// Resizes a block, in place where it can; null when there is no room, and then the block is as it was.
    ///
    /// # Safety
    /// As for [`dealloc`](Self::dealloc), with `align` as it was asked for.
    pub unsafe fn realloc(&mut self, block: *mut u8, old: usize, align: usize, new: usize) -> *mut u8 {
        let (_, old_bytes) = class_of(old);
        if new > self.capacity {
            return null_mut();
        }
        let (_, new_bytes) = class_of(new);
        if let Some(start) = self.offset(block) {
            if new_bytes == old_bytes {
                return block;
            }
            if start + old_bytes == self.used && start + new_bytes <= self.capacity {
                self.dirty = self.dirty.max(start + new_bytes);
                self.used = start + new_bytes;
                return block;
            }
        }
        let moved = self.alloc(new, align, false);
        if !moved.is_null() {
            // SAFETY: both have at least `min(old, new)` bytes, and the new block is not the old one.
            unsafe { moved.copy_from_nonoverlapping(block, old.min(new)) };
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(block, old) };
        }
        moved
    }

    /// Forgets every block and makes all memory zero again.
    ///
    /// # Safety
    /// No block is used any more.
    ///
    /// # Cost
    /// In proportion to what was used; up to [`KEEP_BYTES`] no system call.
    pub unsafe fn reset(&mut self) {
        self.used = 0;
        self.filled = 0;
        // Not only to save work: a masked vector store of no bytes to a page that was never touched, which is how the C library fills nothing,
        // costs 150 ns on processors with AVX-512.
        if self.dirty == 0 {
            return;
        }
        if self.dirty > KEEP_BYTES {
            // SAFETY: within the mapping; whole pages, and nobody uses them.
            let above = unsafe { self.base.byte_add(KEEP_BYTES) };
            let len = self.dirty.next_multiple_of(4096) - KEEP_BYTES;
            // SAFETY: as above.
            let given = unsafe { madvise(above.cast(), len, MmapAdvise::MADV_DONTNEED) };
            if given.is_err() {
                // SAFETY: as above; `len` stays below the capacity, a multiple of 4096.
                unsafe { above.write_bytes(0, len) };
            }
            self.dirty = KEEP_BYTES;
        }
        // SAFETY: `dirty` bytes were handed out, so they lie in the mapping; nobody uses them.
        unsafe { self.base.write_bytes(0, self.dirty) };
        self.dirty = 0;
    }

    /// A copy of everything, blocks and bookkeeping. Nobody writes to a block meanwhile.
    #[must_use]
    pub fn image(&self) -> Image {
        let all = NonNull::slice_from_raw_parts(self.base, self.dirty);
        // SAFETY: within the mapping; zero where it was never written.
        let bytes = unsafe { all.as_ref() }.into();
        Image { bytes, used: self.used, filled: self.filled, lists: self.lists }
    }

    /// Goes back to an image of this arena, whatever a call has left half done.
    ///
    /// # Safety
    /// No block is used any more that was not there then.
    pub unsafe fn restore(&mut self, image: &Image) {
        // SAFETY: the blocks of the image are written below.
        unsafe { self.reset() };
        self.dirty = image.bytes.len();
        // SAFETY: as many bytes of this mapping were copied, and nobody uses them.
        unsafe { self.base.as_ptr().copy_from_nonoverlapping(image.bytes.as_ptr(), image.bytes.len()) };
        (self.used, self.filled, self.lists) = (image.used, image.filled, image.lists);
    }

    /// Most bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes from the start to the highest ever handed out since the last reset.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.dirty
    }

    /// Start of the memory.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Forbids writing to the pages that hold blocks.
    ///
    /// # Errors
    /// As `mprotect(2)`.
    pub fn protect(&self) -> io::Result<()> {
        let len = self.dirty.next_multiple_of(4096);
        // SAFETY: the range is this mapping's; who writes to it while it is forbidden gets a SIGSEGV, as intended.
        Ok(unsafe { mprotect(self.base.cast(), len, ProtFlags::PROT_READ) }?)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; whoever drops an arena has no blocks of it.
        let _ = unsafe { munmap(self.base.cast(), self.capacity) };
    }
}
