//! The worker, with an allocator that counts into a file that the test reads.
#![expect(unsafe_code, reason = "an allocator, and a mapping that outlives everything")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Where to count; null before the file is mapped.
static COUNT: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());

struct Counting;

fn count() {
    // SAFETY: null, or the start of a mapping of a page that is never unmapped.
    if let Some(count) = unsafe { COUNT.load(Ordering::Relaxed).as_ref() } {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the system's allocator, with a counter beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> std::io::Result<()> {
    let socket = microfaas_worker::control::inherited()?;
    let path = std::env::var_os(microfaas_e2e::COUNT_FILE).ok_or(std::io::ErrorKind::NotFound)?;
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mapping = microfaas_sys::mapping::Mapping::shared_rw(file.as_fd(), 4096, 4096)?;
    COUNT.store(mapping.base().as_ptr().cast(), Ordering::Relaxed);
    std::mem::forget(mapping);
    let build = std::env::args().nth(1).unwrap_or_default();
    microfaas_worker::serve::serve(socket, &build).map_err(std::io::Error::other)
}
