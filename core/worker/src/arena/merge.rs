//! What is done when nothing listed fits and nothing more can be cut: neighbours become one block again, and what lies at the top can be cut anew.
//!
//! Blocks go back to lists of their own size and are not merged then, which is quick, and which a call that asks for ever other sizes uses up an arena by in which
//! hardly anything lives. It works in the free blocks themselves: the least of them holds a pointer and a length.
#![expect(unsafe_code, reason = "lists in memory that is nobody's")]

use std::ptr::null_mut;

use super::Arena;
use super::classes::{CLASSES, GRANULE, class_bytes};

/// What a free block begins with while blocks are merged.
struct Free {
    next: *mut Free,
    bytes: usize,
}

const _: () = assert!(size_of::<Free>() <= GRANULE && GRANULE.is_multiple_of(align_of::<Free>()));

/// Lists of so many sorted blocks to the power of two: as many as there can be blocks.
const RUNS: usize = 48;

impl Arena {
    /// Merges free neighbours. False where there were none, and trying again is of no use.
    ///
    /// # Cost
    /// In proportion to n log n of as many blocks as are free, some tens of nanoseconds for each where they are in no cache.
    #[cold]
    #[inline(never)]
    pub(super) fn merge(&mut self) -> bool {
        let mut next = sorted(self.chain());
        self.filled = 0;
        let mut has_merged = false;
        while !next.is_null() {
            let start = next;
            let mut end = start.cast::<u8>();
            while next.cast() == end && !next.is_null() {
                // SAFETY: a free block of the chain, which was written by `chain` and not since.
                let free = unsafe { next.read() };
                has_merged |= next != start;
                // SAFETY: one past the block's end at most.
                end = unsafe { end.add(free.bytes) };
                next = free.next;
            }
            let bytes = end.addr() - start.addr();
            let offset = start.addr() - self.base.addr().get();
            if offset + bytes == self.used {
                self.used = offset;
                has_merged = true;
            } else {
                self.put_all(start.cast(), bytes);
            }
        }
        has_merged
    }

    /// All free blocks, in no order, with their lengths.
    fn chain(&mut self) -> *mut Free {
        let mut first: *mut Free = null_mut();
        for class in 0..CLASSES {
            loop {
                let block = self.take(class);
                if block.is_null() {
                    break;
                }
                #[expect(clippy::cast_ptr_alignment, reason = "blocks lie at multiples of 16")]
                let free = block.cast::<Free>();
                // SAFETY: a block that is nobody's has 16 bytes at least, and lies at a multiple of that.
                unsafe { free.write(Free { next: first, bytes: class_bytes(class) }) };
                first = free;
            }
        }
        first
    }
}

/// The chain by addresses: single blocks, pairs, fours and so on are joined as they come, so that it takes no recursion and no memory.
fn sorted(mut chain: *mut Free) -> *mut Free {
    let mut runs: [*mut Free; RUNS] = [null_mut(); RUNS];
    while !chain.is_null() {
        let single = chain;
        // SAFETY: a free block of the chain.
        chain = unsafe { (*single).next };
        // SAFETY: as above; nobody else refers to it.
        unsafe { (*single).next = null_mut() };
        let mut run = single;
        for place in &mut runs {
            if place.is_null() {
                *place = run;
                break;
            }
            run = joined(std::mem::replace(place, null_mut()), run);
        }
    }
    runs.into_iter().fold(null_mut(), joined)
}

/// Two sorted chains as one.
fn joined(mut one: *mut Free, mut other: *mut Free) -> *mut Free {
    let mut first: *mut Free = null_mut();
    let mut last: *mut *mut Free = &raw mut first;
    while !one.is_null() && !other.is_null() {
        let lower = if one.addr() < other.addr() { &mut one } else { &mut other };
        let taken = *lower;
        // SAFETY: the start of the chain, or the link of the block that was taken last.
        unsafe { last.write(taken) };
        // SAFETY: a free block of a chain.
        *lower = unsafe { (*taken).next };
        // SAFETY: as above.
        last = unsafe { &raw mut (*taken).next };
    }
    // SAFETY: as above.
    unsafe { last.write(if one.is_null() { other } else { one }) };
    first
}
