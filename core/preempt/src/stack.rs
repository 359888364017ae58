//! Guarded stacks.
#![expect(unsafe_code, reason = "maps and unmaps memory")]

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

/// Reserved and inaccessible below each stack: what compiler-made stack probes cannot jump over.
pub const GUARD_BYTES: usize = 1 << 20;
/// Least stack that a call can run on.
pub const STACK_BYTES_MIN: usize = 64 << 10;
/// Most.
pub const STACK_BYTES_MAX: usize = 1 << 30;

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

/// One call's stack, with a guard below it. Pages come when touched.
#[derive(Debug)]
pub struct Stack {
    mapping: NonNull<u8>,
    bytes: usize,
}

impl Stack {
    /// Maps a stack of `bytes` usable bytes.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn new(bytes: usize) -> Result<Self, StackError> {
        if !(STACK_BYTES_MIN..=STACK_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(4096) {
            return Err(StackError::Size(bytes));
        }
        let total = NonZeroUsize::new(GUARD_BYTES + bytes).ok_or(StackError::Size(bytes))?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_STACK;
        // SAFETY: a new anonymous mapping wherever the kernel likes replaces nothing.
        let mapping = unsafe { mmap_anonymous(None, total, ProtFlags::PROT_NONE, flags) };
        let mapping = mapping.map_err(|e| StackError::Map(e.into()))?;
        let stack = Self { mapping: mapping.cast(), bytes };
        let usable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the range is the upper part of the mapping just made, which nothing uses yet.
        unsafe { mprotect(stack.low().cast(), bytes, usable) }.map_err(|e| StackError::Map(e.into()))?;
        Ok(stack)
    }

    /// Lowest usable byte.
    #[must_use]
    pub fn low(&self) -> NonNull<u8> {
        // SAFETY: the mapping is longer than the guard.
        unsafe { self.mapping.byte_add(GUARD_BYTES) }
    }

    /// One past the highest usable byte; a multiple of 4096.
    #[must_use]
    pub fn top(&self) -> NonNull<u8> {
        // SAFETY: one past the end of the mapping.
        unsafe { self.low().byte_add(self.bytes) }
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

    /// Gives the pages below the topmost `keep` bytes back to the kernel; they read as zero afterwards.
    ///
    /// # Safety
    /// Nothing runs on this stack.
    pub unsafe fn give_back(&mut self, keep: usize) {
        let len = self.bytes.saturating_sub(keep.next_multiple_of(4096));
        // SAFETY: the range lies in our mapping; nothing lives in it, by the caller's promise.
        // An error would leave the pages as they are, which is only a waste.
        let _ = unsafe { madvise(self.low().cast(), len, MmapAdvise::MADV_DONTNEED) };
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and a stack in use is borrowed by `run`.
        let _ = unsafe { munmap(self.mapping.cast(), GUARD_BYTES + self.bytes) };
    }
}
