//! The heap that a module's `init` made: kept for the life of the instance, and the same before each call.
//!
//! After `init` a copy is taken and the pages are made read-only. The first write to a page faults; the fault handler
//! makes the page writable and notes it ([`repair`]), and from then on [`restore`](KeptHeap::restore) copies it back after each call. So a
//! page that is never written costs nothing, one that every call writes (a lock, a reference count) costs a copy of 4 KiB a call, and one
//! fault in its life.
//!
//! Each page that is writable among others that are not is a mapping of its own, of which the kernel allows 65,530 in a process. So from `SINGLE_MAX` pages on
//! they are opened by runs of `RUN`, and where the kernel refuses, all at once.
#![expect(unsafe_code, reason = "raw copies and a pointer shared with a signal handler")]

use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use microfaas_preempt::contain::Repaired;
use nix::sys::mman::{ProtFlags, mprotect};

use crate::arena::Arena;

const PAGE: usize = 4096;
/// Pages that are opened one by one. Copying so many back takes some 400 us.
const SINGLE_MAX: usize = 1024;
/// Pages that are opened together afterwards: 64 KiB.
const RUN: usize = 16;

/// See the module. Lives in a box, so that the handler's pointer stays right.
#[derive(Debug)]
pub struct KeptHeap {
    arena: Arena,
    copy: Box<[u8]>,
    /// Whether a page is writable; by page.
    writable: Box<[bool]>,
    /// The writable pages, in the order in which they became so; `count` are in use.
    pages: Box<[u32]>,
    count: usize,
}

/// The written pages of a suspended call's heap. Its memory is used again.
#[derive(Debug, Default)]
pub struct SavedPages {
    /// How many of the heap's writable pages; the list only grows at its end.
    count: usize,
    bytes: Vec<u8>,
}

/// The heap of the instance that runs now.
static CURRENT: AtomicPtr<KeptHeap> = AtomicPtr::new(null_mut());

impl KeptHeap {
    /// Takes over the arena in which `init` ran.
    ///
    /// # Errors
    /// Where the pages cannot be made read-only.
    pub fn new(arena: Arena) -> io::Result<Box<Self>> {
        let bytes = arena.dirty_bytes().next_multiple_of(PAGE);
        // SAFETY: the arena's memory is readable up to its capacity, a multiple of the page, and nothing writes to it meanwhile.
        let copy = unsafe { std::slice::from_raw_parts(arena.base().as_ptr(), bytes) }.into();
        arena.protect()?;
        let pages = bytes / PAGE;
        let (writable, list) = (vec![false; pages].into(), vec![0; pages].into());
        Ok(Box::new(Self { arena, copy, writable, pages: list, count: 0 }))
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.copy.len()
    }

    /// Bytes that are copied back after each call.
    #[inline]
    #[must_use]
    pub fn written_bytes(&self) -> usize {
        self.count * PAGE
    }

    /// Makes this heap the one that [`repair`] knows.
    ///
    /// # Safety
    /// The heap outlives its being current: another is made current, or no call runs, before it is dropped or moved.
    pub unsafe fn make_current(&mut self) {
        CURRENT.store(self, Ordering::Relaxed);
    }

    /// Copies the written pages back.
    ///
    /// # Safety
    /// No call of the instance runs, and no Rust reference into the heap is live.
    pub unsafe fn restore(&mut self) {
        for page in &self.pages[..self.count] {
            let offset = *page as usize * PAGE;
            let from = self.copy[offset..offset + PAGE].as_ptr();
            // SAFETY: the page lies in the arena.
            let to = unsafe { self.arena.base().as_ptr().add(offset) };
            // SAFETY: both are whole pages; the arena's is writable, as it is listed.
            unsafe { to.copy_from_nonoverlapping(from, PAGE) };
        }
    }

    /// Keeps the pages that a suspended call may have written.
    ///
    /// # Safety
    /// As for [`restore`](Self::restore).
    pub unsafe fn put_aside(&self, into: &mut SavedPages) {
        into.count = self.count;
        into.bytes.clear();
        into.bytes.reserve_exact(self.written_bytes());
        for page in &self.pages[..self.count] {
            // SAFETY: the page lies in the arena, and is written by nobody now.
            let live = unsafe { self.arena.base().byte_add(*page as usize * PAGE) };
            // SAFETY: as above.
            into.bytes.extend_from_slice(unsafe { NonNull::slice_from_raw_parts(live, PAGE).as_ref() });
        }
    }

    /// Brings back what [`put_aside`](Self::put_aside) kept. Pages that became writable since are as they were before any call, which is how the
    /// suspended call knew them.
    ///
    /// # Safety
    /// As for [`restore`](Self::restore); `from` was kept from this heap.
    pub unsafe fn bring_back(&mut self, from: &SavedPages) {
        for (page, bytes) in
            self.pages[..from.count.min(self.count)].iter().zip(from.bytes.chunks_exact(PAGE))
        {
            // SAFETY: the page lies in the arena.
            let to = unsafe { self.arena.base().as_ptr().add(*page as usize * PAGE) };
            // SAFETY: both are whole pages; the arena's is writable, as it is listed.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), PAGE) };
        }
    }

    /// Makes the page of an address writable, if it is one of this heap that is not yet.
    fn open(&mut self, address: usize) -> Repaired {
        let page = address.wrapping_sub(self.arena.base().addr().get()) / PAGE;
        let all = self.writable.len();
        if page >= all || self.writable[page] {
            return Repaired::NotMine;
        }
        let run = if self.count < SINGLE_MAX { 1 } else { RUN };
        let first = page - page % run;
        if self.open_pages(first..(first + run).min(all)) || self.open_pages(0..all) {
            Repaired::Done
        } else {
            Repaired::NoMemory
        }
    }

    /// False where the kernel refuses.
    fn open_pages(&mut self, pages: std::ops::Range<usize>) -> bool {
        // SAFETY: the pages lie in the arena.
        let start = unsafe { self.arena.base().byte_add(pages.start * PAGE) };
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the pages are this heap's own.
        if unsafe { mprotect(start.cast(), pages.len() * PAGE, access) }.is_err() {
            return false;
        }
        for page in pages {
            if !std::mem::replace(&mut self.writable[page], true) {
                #[expect(clippy::cast_possible_truncation, reason = "an arena has fewer than 2^32 pages")]
                let number = page as u32;
                self.pages[self.count] = number;
                self.count += 1;
            }
        }
        true
    }
}

/// No heap is one that [`repair`] knows.
pub fn none_is_current() {
    CURRENT.store(null_mut(), Ordering::Relaxed);
}

/// For the fault handler: whether the access at `address` may be tried again.
///
/// # Async-signal safety
/// Yes: two system calls at most, no allocation, no lock. The interrupted code is a call, so nobody else uses the heap's bookkeeping.
pub fn repair(address: usize) -> Repaired {
    let current = CURRENT.load(Ordering::Relaxed);
    // SAFETY: `make_current` keeps the pointer right, and the worker itself touches the heap only between calls.
    unsafe { current.as_mut() }.map_or(Repaired::NotMine, |heap| heap.open(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::ARENA_BYTES_MIN;

    #[test]
    fn written_pages_come_back_and_others_are_left_alone() {
        let mut arena = Arena::new(ARENA_BYTES_MIN).unwrap();
        let block = arena.alloc(3 * PAGE, PAGE, false);
        // SAFETY: the test owns the block.
        unsafe { block.write_bytes(7, 3 * PAGE) };
        let mut heap = KeptHeap::new(arena).unwrap();
        // SAFETY: the heap stays where it is until the end of the test; no other test makes one current.
        unsafe { heap.make_current() };
        let second = block.addr() + PAGE + 5;
        assert_eq!(repair(second), Repaired::Done, "a first write is repaired");
        assert_eq!(repair(second), Repaired::NotMine, "a second fault on the same page is a real one");
        assert_eq!(
            repair(block.addr() + heap.bytes()),
            Repaired::NotMine,
            "an address behind the heap is not ours"
        );
        let target = block.wrapping_add(PAGE + 5);
        // SAFETY: the page was made writable.
        unsafe { target.write(9) };
        // SAFETY: no call runs.
        unsafe { heap.restore() };
        // SAFETY: readable as ever.
        assert_eq!(unsafe { target.read() }, 7);
        CURRENT.store(null_mut(), Ordering::Relaxed);
    }
    /// Every other page, so that each that is opened alone is a mapping of its own.
    #[test]
    fn a_heap_that_is_written_all_over_is_opened_in_runs_and_comes_back() {
        let pages = 4 * SINGLE_MAX;
        let mut arena = Arena::new((pages + 1) * PAGE).unwrap();
        let block = arena.alloc(pages * PAGE, PAGE, false);
        let mut heap = KeptHeap::new(arena).unwrap();
        for page in (0..pages).step_by(2) {
            let at = block.wrapping_add(page * PAGE);
            if heap.open(at.addr()) == Repaired::NotMine {
                assert!(page / 2 >= SINGLE_MAX, "page {page} is of a run");
            }
            // SAFETY: the page was made writable, now or before.
            unsafe { at.write(9) };
        }
        assert_eq!(heap.count, SINGLE_MAX + 2 * SINGLE_MAX, "half of the first half, all of the second");
        assert!(heap.open_pages(0..pages), "all at once");
        assert_eq!(heap.count, pages);
        // SAFETY: no call runs.
        unsafe { heap.restore() };
        // SAFETY: readable as ever.
        assert!((0..pages).all(|page| unsafe { block.wrapping_add(page * PAGE).read() } == 0));
    }
}
