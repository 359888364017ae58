//! Hints to the processor that a line of a lane will be needed soon. They never fault and change nothing.
#![expect(unsafe_code, reason = "processor instructions")]

use core::ptr::NonNull;

#[cfg(any(not(target_arch = "x86_64"), miri))]
pub(crate) fn prefetch(_base: NonNull<u8>, _offset: usize) {}

#[cfg(any(not(target_arch = "x86_64"), miri))]
pub(crate) fn prefetch_write(_base: NonNull<u8>, _offset: usize) {}

/// Fetches the line at `base + offset` for reading.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) fn prefetch(base: NonNull<u8>, offset: usize) {
    let line = base.as_ptr().wrapping_add(offset);
    // SAFETY: SSE is part of the x86-64 baseline; a prefetch of any address is harmless.
    unsafe { core::arch::x86_64::_mm_prefetch(line.cast(), core::arch::x86_64::_MM_HINT_T0) };
}

/// As [`prefetch`], for writing.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) fn prefetch_write(base: NonNull<u8>, offset: usize) {
    let line = base.as_ptr().wrapping_add(offset);
    // SAFETY: a hint, harmless for any address; where the processor does not know it, it is a no-op.
    unsafe { core::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly)) };
}
