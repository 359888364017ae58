//! The C library's allocation functions, over the same arena.
//!
//! The standard library takes some memory past the global allocator, from `malloc`, and keeps it in thread-local
//! storage; C code in a dependency takes all of it there. Such blocks would outlive the call that made them, and pointers to
//! them would be put back or lost with the instance's state. So a module carries these definitions, hidden
//! inside it ([`export_module!`](crate::export_module) gives them their C names), and they take from the arena.
//!
//! A block is preceded by `Header`, from which `free` learns its size. A pointer without one came from the C library
//! itself (`getline`, for one) and is left alone: a leak in a rare case rather than a corrupt heap.
#![expect(unsafe_code, reason = "the C interface of an allocator")]

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

use super::alloc;

/// Alignment that `malloc` promises on the platforms that workers run on.
const MALLOC_ALIGN: usize = 16;
const HEADER_BYTES: usize = size_of::<Header>();
/// As `valloc` aligns; where pages are larger that is as well.
const PAGE_BYTES: usize = 4096;
/// Exclusive-or with the block's address gives [`Header::tag`]. Any odd number does: an address of a block is even.
const TAG: usize = 0x6d66_6161_736d_656d;

/// Directly before the block.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    /// Bytes asked for, and the binary logarithm of the alignment in the highest byte.
    size_and_align: usize,
    tag: usize,
}

const _: () = assert!(HEADER_BYTES == MALLOC_ALIGN && TAG % 2 == 1);

impl Header {
    const SIZE_BITS: u32 = usize::BITS - 8;

    fn size(self) -> usize {
        self.size_and_align & ((1 << Self::SIZE_BITS) - 1)
    }

    fn align(self) -> usize {
        1 << (self.size_and_align >> Self::SIZE_BITS)
    }
}

fn take(size: usize, align: usize, zeroed: bool) -> *mut c_void {
    let align = align.max(MALLOC_ALIGN);
    // As glibc: no block over the address space's half; so the logarithm fits above the size.
    if size > (1 << (Header::SIZE_BITS - 1)) || align > (1 << (Header::SIZE_BITS - 1)) {
        return ptr::null_mut();
    }
    // The header ends where the block starts, a multiple of `align` after the start.
    let start = alloc::allocate(size + align, align, zeroed);
    if start.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the memory is `size + align` bytes.
    let block = unsafe { start.add(align) };
    let log = align.trailing_zeros() as usize;
    let header = Header { size_and_align: size | (log << Header::SIZE_BITS), tag: TAG ^ block.addr() };
    // SAFETY: `align >= HEADER_BYTES`, so the header is inside what was allocated.
    let place = unsafe { block.sub(HEADER_BYTES) };
    #[expect(clippy::cast_ptr_alignment, reason = "a multiple of 16 from a block aligned to 16 or more")]
    let place = place.cast::<Header>();
    // SAFETY: in bounds and aligned, as above.
    unsafe { place.write(header) };
    block.cast()
}

/// The header of a block of ours; `None` for a block of the C library.
///
/// # Safety
/// `block` is not null and came from an allocation function, ours or the C library's: both keep 16 readable bytes before it.
unsafe fn header_of(block: *mut c_void) -> Option<Header> {
    if !block.addr().is_multiple_of(MALLOC_ALIGN) {
        return None;
    }
    let header = block.wrapping_byte_sub(HEADER_BYTES).cast::<Header>();
    // SAFETY: the caller's promise; aligned, as was just checked.
    let header = unsafe { header.read() };
    (header.tag == TAG ^ block.addr()).then_some(header)
}

/// `malloc(3)`.
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    take(size, MALLOC_ALIGN, false)
}

/// `calloc(3)`.
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(total) => take(total, MALLOC_ALIGN, true),
        None => ptr::null_mut(),
    }
}

/// `free(3)`.
///
/// # Safety
/// `block` is null or came from an allocation function, and is not used after.
pub unsafe extern "C" fn free(block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let Some(header) = (unsafe { header_of(block) }) else { return };
    let start = block.wrapping_byte_sub(header.align()).cast();
    // A freed block's tag is wiped, so that a second `free` finds none.
    // SAFETY: the header is the 16 bytes before the block, and the block is ours.
    unsafe { block.wrapping_byte_sub(HEADER_BYTES).cast::<Header>().write_bytes(0, 1) };
    // SAFETY: `take` allocated it with this size and align.
    unsafe { alloc::deallocate(start, header.size() + header.align(), header.align()) };
}

/// `realloc(3)`.
///
/// # Safety
/// `block` is null or came from an allocation function; what is returned replaces it unless it is null.
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    // SAFETY: the caller's promise.
    let Some(header) = (unsafe { header_of(block) }) else { return ptr::null_mut() };
    let new = take(size, header.align(), false);
    if !new.is_null() {
        // SAFETY: both hold as many bytes; two blocks that live at once do not overlap.
        unsafe { ptr::copy_nonoverlapping(block.cast::<u8>(), new.cast(), size.min(header.size())) };
        // SAFETY: the caller's promise.
        unsafe { free(block) };
    }
    new
}

/// `posix_memalign(3)`.
///
/// # Safety
/// `out` may be written.
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<usize>() {
        return libc::EINVAL;
    }
    let block = take(size, align, false);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(block) };
    0
}

/// `aligned_alloc(3)`.
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return ptr::null_mut();
    }
    take(size, align, false)
}

/// `memalign(3)`.
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => take(size, align, false),
        None => ptr::null_mut(),
    }
}

/// `valloc(3)`.
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    take(size, PAGE_BYTES, false)
}

/// `pvalloc(3)`.
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    size.checked_next_multiple_of(PAGE_BYTES).map_or(ptr::null_mut(), |size| take(size, PAGE_BYTES, false))
}

/// `reallocarray(3)`.
///
/// # Safety
/// As [`realloc`].
pub unsafe extern "C" fn reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let Some(total) = count.checked_mul(size) else { return ptr::null_mut() };
    // SAFETY: the caller's promise.
    unsafe { realloc(block, total) }
}

/// `malloc_usable_size(3)`.
///
/// # Safety
/// `block` is null or came from an allocation function.
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    if block.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { header_of(block) }.map_or(0, Header::size)
}

/// `strdup(3)`.
///
/// # Safety
/// `text` is a string.
pub unsafe extern "C" fn strdup(text: *const c_char) -> *mut c_char {
    // SAFETY: the caller's promise.
    let len = unsafe { CStr::from_ptr(text) }.count_bytes();
    // SAFETY: as many bytes, and a zero after them.
    unsafe { copy(text, len) }
}

/// `strndup(3)`.
///
/// # Safety
/// `text` is a string, or readable for `most` bytes.
pub unsafe extern "C" fn strndup(text: *const c_char, most: usize) -> *mut c_char {
    // SAFETY: the caller's promise.
    let len = unsafe { libc::strnlen(text, most) };
    // SAFETY: as many bytes.
    unsafe { copy(text, len) }
}

/// # Safety
/// `text` is readable for `len` bytes.
unsafe fn copy(text: *const c_char, len: usize) -> *mut c_char {
    // An object that exists and one byte.
    let block = malloc(len + 1).cast::<c_char>();
    if !block.is_null() {
        // SAFETY: the caller's promise; the block is new and holds one byte more.
        unsafe { block.copy_from_nonoverlapping(text, len) };
        // SAFETY: within the block.
        let end = unsafe { block.add(len) };
        // SAFETY: as above.
        unsafe { end.write(0) };
    }
    block
}

/// Registers nothing: thread-local destructors never run in a module.
///
/// The C library's list would hold a pointer into the module for the life of the thread: past its unloading, and
/// past the reset that takes the registered value away.
pub extern "C" fn __cxa_thread_atexit_impl(_: *mut c_void, _: *mut c_void, _: *mut c_void) -> c_int {
    0
}
