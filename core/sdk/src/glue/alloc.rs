//! The module's allocator: the worker's current arena.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

use super::runtime;

/// Allocates from the arena of the call that runs, or of the instance while `init` runs.
///
/// Before the worker has attached the module there is no arena and each allocation fails, which Rust code answers by
/// aborting: nothing of a module runs before that but the loader's own initialisers, which do not allocate.
#[derive(Debug, Clone, Copy)]
pub struct ModuleAllocator;

// SAFETY: `alloc` and `realloc` of the runtime return memory of that size and alignment that nothing else
// uses, or do not return; `dealloc` takes it back. None of them unwinds.
unsafe impl GlobalAlloc for ModuleAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocate(layout.size(), layout.align(), false)
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        allocate(layout.size(), layout.align(), true)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: `block` came from this allocator with this layout.
        unsafe { deallocate(block, layout.size(), layout.align()) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: `block` came from this allocator with this layout.
        unsafe { reallocate(block, layout.size(), layout.align(), new_size) }
    }
}

/// Null before attach, else memory; does not return when the arena is used up.
#[inline]
pub(super) fn allocate(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    let Some(runtime) = runtime::get() else { return ptr::null_mut() };
    // SAFETY: the runtime is valid for the worker's life; its table is filled before attach and does not change.
    let alloc = unsafe { (*runtime.as_ptr()).alloc };
    // SAFETY: by the ABI it takes any size and any power of two; `Layout` and our callers give one.
    unsafe { alloc(size, align, u32::from(zeroed)) }
}

/// # Safety
/// `block` came from [`allocate`] with this size and align, and is not used after.
#[inline]
pub(super) unsafe fn deallocate(block: *mut u8, size: usize, align: usize) {
    let Some(runtime) = runtime::get() else { return };
    // SAFETY: the runtime is valid for the worker's life; its table is filled before attach and does not change.
    let dealloc = unsafe { (*runtime.as_ptr()).dealloc };
    // SAFETY: the caller's promise is the ABI's.
    unsafe { dealloc(block, size, align) };
}

/// # Safety
/// As [`deallocate`]; what is returned replaces `block`.
#[inline]
pub(super) unsafe fn reallocate(block: *mut u8, old: usize, align: usize, new: usize) -> *mut u8 {
    let Some(runtime) = runtime::get() else { return ptr::null_mut() };
    // SAFETY: the runtime is valid for the worker's life; its table is filled before attach and does not change.
    let realloc = unsafe { (*runtime.as_ptr()).realloc };
    // SAFETY: the caller's promise is the ABI's.
    unsafe { realloc(block, old, align, new) }
}
