//! Which file a piece of this program's code was loaded from. See `dladdr(3)`.
#![expect(unsafe_code, reason = "asks the dynamic linker")]

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The executable or shared library that holds this very code: the program itself in a Rust program, the library in a C
/// or Python program that has loaded it. `None` where the linker does not know; the path may be relative to the directory in which the
/// process was started.
#[must_use]
pub fn path() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let here: fn() -> Option<PathBuf> = path;
    // SAFETY: the address is this function's, and `info` is writable.
    let found = unsafe { libc::dladdr(here as *const libc::c_void, info.as_mut_ptr()) };
    if found == 0 {
        return None;
    }
    // SAFETY: `dladdr` succeeded, so it has filled the structure; zero was valid before.
    let info = unsafe { info.assume_init() };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a terminated string of the linker's, which lives as long as the object is loaded: as long as this code runs.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_test_is_in_its_own_executable() {
        let found = super::path().unwrap().canonicalize().unwrap();
        assert_eq!(found, std::env::current_exe().unwrap().canonicalize().unwrap());
    }
}
