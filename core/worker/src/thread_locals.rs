//! The thread-local storage of modules, which the system's loader keeps the books of late: at the first use of any thread-local after a library has come or gone. It makes the
//! block of a library then, and frees the blocks of those that have gone, with the C library's allocator. In a call that would be a change of the worker's heap that the call may be
//! suspended in, or ended in; and a block that is not there when an instance is captured is none that is put back. So the worker uses one itself, at once.
#![expect(unsafe_code, reason = "asks the system's loader")]

use std::ffi::c_void;
use std::hint::black_box;

use libc::{c_int, dl_phdr_info, size_t};

/// What the loader takes: a library's number, and an offset in its block.
#[repr(C)]
struct Index {
    module: usize,
    offset: usize,
}

unsafe extern "C" {
    /// As compiled code calls it for each thread-local of a shared library.
    fn __tls_get_addr(index: *const Index) -> *mut c_void;
}

/// Makes the block of the library with this number, which is not 0, if it is not there yet, and frees those of libraries that have gone.
///
/// # Cost
/// A few nanoseconds, unless there is something to do.
pub fn make(module: usize) {
    let index = Index { module, offset: 0 };
    // SAFETY: the number is that of a loaded library with thread-locals, by `dl_iterate_phdr`, and its block has a first byte. What the loader copies into it is in the library and
    // fits (`microfaas_manifest` refuses any other), and the block is no larger than was looked at before (`check_size` of the loader).
    black_box(unsafe { __tls_get_addr(&raw const index) });
}

/// Frees the blocks of libraries that have gone.
pub fn settle() {
    let mut module = 0usize;
    // SAFETY: the callback has the right signature, and its argument outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(any), (&raw mut module).cast()) };
    // The C library has some, if nobody else.
    if module != 0 {
        make(module);
    }
}

/// The number of the first library that has thread-locals: one that does not go.
extern "C" fn any(info: *mut dl_phdr_info, _size: size_t, data: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid record.
    let module = unsafe { (*info).dlpi_tls_modid };
    // SAFETY: `settle` passes its own number.
    unsafe { data.cast::<usize>().write(module) };
    c_int::from(module != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_thread_locals_can_be_asked_for_at_any_time() {
        settle();
        settle();
        let mut module = 0usize;
        // SAFETY: as in `settle`.
        let found = unsafe { libc::dl_iterate_phdr(Some(any), (&raw mut module).cast()) };
        assert!(found == 1 && module != 0, "the C library has `errno`, for one");
    }
}
