//! Guarded stacks whose pages come when they are touched, and which forget what was on them.
//!
//! ```text
//! guard          | closed                      | open            | hot
//! no access ever | no access before it is used | used of late    | always used
//! ^ mapping      ^ low                         ^ open_from       ^ hot     ^ top
//! ```
//!
//! Most calls need a few hundred bytes: the *hot* part is cleared after each, which costs a few nanoseconds. The first access below it faults, and the handler opens as much as is
//! needed, at least twice what was open. What is open is cleared after each call, so it is closed again when calls do not need it: at once where it is
//! large, else down to where the last of some calls has left a trace, for as many calls as clearing it costs about what opening it does.
#![expect(unsafe_code, reason = "maps, protects and clears memory")]

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

/// Reserved and inaccessible below each stack, in addresses and not in memory: what compiler-made stack probes cannot jump over, and frames of C code without
/// probes do not, unless they are larger.
pub const GUARD_BYTES: usize = 64 << 20;
/// Least stack that a call can run on.
pub const STACK_BYTES_MIN: usize = 64 << 10;
/// Most.
pub const STACK_BYTES_MAX: usize = 1 << 30;

pub(crate) const PAGE: usize = 4096;
/// Cleared after every call; less than a page. Short functions need less than 1 KiB.
const HOT_BYTES: usize = 1536;
/// What is opened beyond this is the whole stack, and goes back to the kernel after the call.
pub(crate) const KEEP_BYTES: usize = 256 << 10;
/// How much is cleared, over calls, before it is looked at how much of it is used: 64 calls with 64 KiB, 16 with [`KEEP_BYTES`].
const CLEARED_BYTES: usize = 4 << 20;
/// Most calls between two looks.
const CALLS_OPEN: usize = 64;

/// Why there is no stack.
#[derive(Debug)]
#[non_exhaustive]
pub enum StackError {
    /// Not a multiple of 4096 from [`STACK_BYTES_MIN`] to [`STACK_BYTES_MAX`].
    Size(usize),
    /// The kernel refused the memory.
    Map(io::Error),
}

impl std::fmt::Display for StackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Size(n) => {
                write!(
                    f,
                    "stack of {n} bytes, allowed are multiples of 4096 from {STACK_BYTES_MIN} to {STACK_BYTES_MAX}"
                )
            }
            Self::Map(error) => write!(f, "cannot map a stack: {error}"),
        }
    }
}

impl std::error::Error for StackError {}

/// One call's stack, with a guard below it. See the module.
#[derive(Debug)]
pub struct Stack {
    mapping: NonNull<u8>,
    /// Between guard and hot part.
    bytes: usize,
    /// Lowest address that can be touched without a fault.
    open_from: usize,
    /// Bytes to be cleared until the open part is looked at.
    left: usize,
}

impl Stack {
    /// Maps a stack of at least `bytes` usable bytes, all of it open: it can be used without handlers for faults.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn new(bytes: usize) -> Result<Self, StackError> {
        let mut stack = Self::closed(bytes)?;
        stack.protect(stack.low().addr().get()..stack.hot(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        stack.open_from = stack.low().addr().get();
        Ok(stack)
    }

    /// As [`new`](Self::new), with all but the hot part closed. Calls that run on it need the handlers of [`contain`](crate::contain), which open it.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn closed(bytes: usize) -> Result<Self, StackError> {
        if !(STACK_BYTES_MIN..=STACK_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(PAGE) {
            return Err(StackError::Size(bytes));
        }
        let total = NonZeroUsize::new(GUARD_BYTES + bytes + PAGE).ok_or(StackError::Size(bytes))?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_STACK;
        // SAFETY: a new anonymous mapping wherever the kernel likes replaces nothing.
        let mapping = unsafe { mmap_anonymous(None, total, ProtFlags::PROT_NONE, flags) };
        let mapping = mapping.map_err(|e| StackError::Map(e.into()))?.cast::<u8>();
        let hot = mapping.addr().get() + GUARD_BYTES + bytes;
        let stack = Self { mapping, bytes, open_from: hot, left: CLEARED_BYTES };
        stack.protect(hot..hot + PAGE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        Ok(stack)
    }

    fn protect(&self, range: std::ops::Range<usize>, access: ProtFlags) -> Result<(), StackError> {
        let (start, len) = self.part(range);
        // SAFETY: the range lies in our mapping, above the guard; what lived in a part that is closed lives no more.
        unsafe { mprotect(start.cast(), len, access) }.map_err(|e| StackError::Map(e.into()))
    }

    /// A part of the mapping as the kernel takes it.
    fn part(&self, range: std::ops::Range<usize>) -> (NonNull<u8>, usize) {
        // SAFETY: callers pass addresses of the mapping.
        (unsafe { self.mapping.byte_add(range.start - self.mapping.addr().get()) }, range.len())
    }

    /// Lowest usable byte.
    #[must_use]
    pub fn low(&self) -> NonNull<u8> {
        // SAFETY: the mapping is longer than the guard.
        unsafe { self.mapping.byte_add(GUARD_BYTES) }
    }

    /// Address of the hot part: one past the highest that can be closed.
    fn hot(&self) -> usize {
        self.low().addr().get() + self.bytes
    }

    /// One past the highest usable byte; a multiple of 64.
    #[must_use]
    pub fn top(&self) -> NonNull<u8> {
        // SAFETY: within the mapping, which has a page for the hot part.
        unsafe { self.low().byte_add(self.bytes + HOT_BYTES) }
    }

    /// Addresses of the guard.
    #[must_use]
    pub fn guard(&self) -> std::ops::Range<usize> {
        self.mapping.addr().get()..self.low().addr().get()
    }

    /// Addresses of the usable part.
    #[must_use]
    pub fn usable(&self) -> std::ops::Range<usize> {
        self.low().addr().get()..self.top().addr().get()
    }

    /// Lowest address that can be touched without a fault.
    #[inline]
    pub(crate) fn open_from(&self) -> usize {
        self.open_from
    }

    /// The handler has opened it down to here.
    #[inline]
    pub(crate) fn opened_to(&mut self, address: usize) {
        self.open_from = address;
    }

    /// Makes all of it zero that a call may have written.
    ///
    /// # Safety
    /// Nothing runs on this stack, and no call is suspended on it.
    ///
    /// # Cost
    /// 7 ns for calls that need no more than the hot part; about 20 ns more for each 4 KiB that are open; two system calls after a call that needed more
    /// than 256 KiB.
    #[inline]
    pub unsafe fn clear(&mut self) {
        let (hot, _) = self.part(self.hot()..self.hot() + HOT_BYTES);
        // SAFETY: the hot part is always writable, and nothing lives on it, by the caller's promise.
        unsafe { hot.write_bytes(0, HOT_BYTES) };
        if self.open_from != self.hot() {
            self.clear_open();
        }
    }

    #[inline(never)]
    fn clear_open(&mut self) {
        let open = self.open_from..self.hot();
        let (start, len) = self.part(open.clone());
        if len > KEEP_BYTES {
            // SAFETY: the range lies in our mapping; nothing lives in it, by the promise of `clear`'s caller.
            if unsafe { madvise(start.cast(), len, MmapAdvise::MADV_DONTNEED) }.is_ok() {
                return self.close(open);
            }
        }
        // A part of few pages is looked at as often as one of sixteen.
        let cost = len.max(CLEARED_BYTES / CALLS_OPEN);
        if self.left < cost {
            // SAFETY: the part is open, aligned to a page, and written by nobody now.
            let words = unsafe { NonNull::slice_from_raw_parts(start.cast::<u64>(), len / 8).as_ref() };
            let unused = words.iter().position(|word| *word != 0).map_or(len, |first| first * 8);
            // All of it where the call has left no trace in it, half where only in the other.
            if unused == len {
                return self.close(open);
            }
            if unused > len / 2 {
                let half = (len / 2).next_multiple_of(PAGE).min(unused & !(PAGE - 1));
                self.close(open.start..open.start + half);
            }
            self.left = CLEARED_BYTES;
        }
        self.left = self.left.saturating_sub(cost);
        let (start, len) = self.part(self.open_from..self.hot());
        // SAFETY: the part is open, and nothing lives on it.
        unsafe { start.write_bytes(0, len) };
    }

    /// Closes a part from the lowest that is open, all of whose bytes are zero. Where the kernel refuses, it stays open and is cleared after each call.
    fn close(&mut self, unused: std::ops::Range<usize>) {
        self.left = CLEARED_BYTES;
        let end = unused.end;
        if !unused.is_empty() && self.protect(unused, ProtFlags::PROT_NONE).is_ok() {
            self.open_from = end;
        }
    }
}

/// Down to where a stack is to be opened when an address of its closed part is touched.
pub(crate) fn opening(address: usize, low: usize, open_from: usize, top: usize) -> usize {
    let hot = top & !(PAGE - 1);
    let needed = hot - (address & !(PAGE - 1));
    if needed > KEEP_BYTES {
        return low;
    }
    // The least of stacks is smaller than that, and below it is the guard.
    (hot - needed.max(2 * (hot - open_from)).min(KEEP_BYTES)).max(low)
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and a stack in use is borrowed by `run`.
        let _ = unsafe { munmap(self.mapping.cast(), GUARD_BYTES + self.bytes + PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_opened_in_steps_and_then_whole() {
        let (low, hot) = (0x10_0000, 0x90_0000);
        let top = hot + HOT_BYTES;
        let opened = |depth: usize, open: usize| hot - opening(hot - depth, low, hot - open, top);
        assert_eq!(opened(1, 0), PAGE);
        assert_eq!(opened(PAGE, 0), PAGE);
        assert_eq!(opened(PAGE + 1, PAGE), 2 * PAGE);
        assert_eq!(opened(5 * PAGE, 4 * PAGE), 8 * PAGE);
        assert_eq!(opened(15 * PAGE, 12 * PAGE), 24 * PAGE);
        assert_eq!(opened(50 * PAGE, 48 * PAGE), KEEP_BYTES);
        assert_eq!(opened(KEEP_BYTES, 0), KEEP_BYTES);
        assert_eq!(opened(KEEP_BYTES + 1, KEEP_BYTES), hot - low);
        assert_eq!(opened(hot - low, 0), hot - low);
    }
    #[test]
    fn the_guard_of_a_small_stack_is_never_opened() {
        let (low, hot) = (0x10_0000, 0x10_0000 + STACK_BYTES_MIN);
        for depth in (1..=STACK_BYTES_MIN).step_by(512) {
            for open in (0..STACK_BYTES_MIN).step_by(PAGE) {
                assert!(opening(hot - depth, low, hot - open, hot + HOT_BYTES) >= low, "{depth} {open}");
            }
        }
    }

    #[test]
    fn what_is_open_follows_what_calls_need() {
        let mut stack = Stack::closed(1 << 20).unwrap();
        let open = |stack: &Stack| stack.hot() - stack.open_from;
        // As calls do that touch so much of it.
        let run = |stack: &mut Stack, depth: usize| {
            while open(stack) < depth {
                let from = opening(
                    stack.hot() - depth,
                    stack.low().addr().get(),
                    stack.open_from,
                    stack.top().addr().get(),
                );
                stack.protect(from..stack.open_from, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).unwrap();
                stack.opened_to(from);
            }
            let (start, len) = stack.part(stack.hot() - depth..stack.hot());
            // SAFETY: open, and nothing lives on it.
            unsafe { start.write_bytes(0x5a, len) };
            // SAFETY: nothing runs on it.
            unsafe { stack.clear() };
            let (start, len) = stack.part(stack.open_from..stack.hot());
            // SAFETY: open and aligned; written by nobody now.
            let bytes = unsafe { NonNull::slice_from_raw_parts(start, len).as_ref() };
            assert!(bytes.iter().all(|byte| *byte == 0), "{depth}");
            open(stack)
        };
        for _ in 0..200 {
            assert!(
                run(&mut stack, 70 << 10) >= 70 << 10,
                "a function that needs it pays for opening it once"
            );
        }
        assert_eq!(run(&mut stack, 200 << 10), 200 << 10);
        let small = (0..400).map(|_| run(&mut stack, 5000)).last();
        assert_eq!(small, Some(2 * PAGE), "one deep call is not paid for by all that come");
        let none = (0..200).map(|_| run(&mut stack, 0)).last();
        assert_eq!(none, Some(0));
        assert_eq!(run(&mut stack, 300 << 10), 0, "large, so it goes back at once");
    }
}
