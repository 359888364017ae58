//! Opening a module in a worker that cannot open files.
//!
//! The system's loader opens, reads, examines and maps a library. The filter lets it map, and executable from one descriptor only: the one that a received
//! module always has, since no other number is free. To open, to read and to examine are forbidden to everybody; the
//! kernel refuses with a SIGSYS, whose handler answers in its place (`answer`), from the module's first page, which is mapped here. So
//! loading needs no system call that a function must not have, no helper and no hole in the filter that opens for a while. What a function could gain by
//! making the handler believe that a module is being loaded is a look at the module's first page.
//!
//! | the loader asks | the answer |
//! | --- | --- |
//! | `openat`, once | the module's descriptor |
//! | `openat` again: a library that the worker does not have | no such file |
//! | `read`, `pread64` | from the module's first page: the headers of the file and of its segments |
//! | `newfstatat`, `fstat` | a file that is like no other, so that the loader does not take it for one that it has |
//! | to choose what a signal does, to send one, to exit: an abort, which the loader has no other way to end in | none: the worker dies of it |
//! | anything else that is forbidden | not permitted, so that the load fails and not the worker |
#![expect(
    unsafe_code,
    reason = "answers system calls in a signal handler, for a loader that passes raw pointers"
)]

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use microfaas_preempt::contain;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::descriptor::Received;
use crate::loader::LoadError;

const PAGE: usize = 4096;

/// The one number that a module's descriptor has in a sealed worker; -1 in one that is not.
static MODULE_FD: AtomicI32 = AtomicI32::new(-1);
/// The first page of the module that is being loaded; null while none is.
static FIRST_PAGE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
/// Its number in the node.
static NUMBER: AtomicU32 = AtomicU32::new(0);
/// Whether the loader has opened it.
static OPENED: AtomicBool = AtomicBool::new(false);
/// Where its next `read` starts.
static POSITION: AtomicUsize = AtomicUsize::new(0);

/// From now on modules are opened through [`answer`].
pub(super) fn seal(module_fd: RawFd) {
    MODULE_FD.store(module_fd, Ordering::Relaxed);
    contain::answer_system_calls(answer);
}

/// Opens a module, whose `number` is another for each module of the worker's life, and closes its descriptor. Runs the library's initialisers.
///
/// # Errors
/// [`LoadError::Io`] and [`LoadError::Open`].
pub fn open(fd: Received, number: u32) -> Result<Library, LoadError> {
    // The loader knows libraries by their path as written, so no two modules may be opened by the same one: the number is spelt in `./` and `/`.
    let spelt: String = (0..u32::BITS).map(|bit| if number >> bit & 1 == 1 { "./" } else { "/" }).collect();
    let path = format!("/proc/self/fd/{spelt}{}", fd.as_raw_fd());
    let sealed = MODULE_FD.load(Ordering::Relaxed) >= 0;
    let _gate = if sealed { Some(Gate::open(fd, number)?) } else { None::<Gate> };
    // SAFETY: runs the library's initialisers. The node has checked that the file is a module, made by our build tool; what a hostile file does here, it does
    // inside the worker's sandbox.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
    library.map_err(|error| LoadError::Open(one_line(&error, &path)))
}

fn one_line(error: &libloading::Error, path: &str) -> String {
    use std::error::Error as _;
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    text.replace(&format!("{path}: "), "").lines().next().unwrap_or("no reason given").to_owned()
}

/// A module on its way into a sealed worker.
struct Gate {
    page: NonNull<u8>,
    fd: RawFd,
}

impl Gate {
    fn open(fd: Received, number: u32) -> Result<Self, LoadError> {
        let length = NonZeroUsize::new(PAGE).unwrap_or(NonZeroUsize::MIN);
        // SAFETY: a new mapping wherever the kernel likes replaces nothing.
        let page = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, fd.as_fd(), 0) };
        let page =
            page.map_err(|error| LoadError::Io("cannot map the module's headers", error.into()))?.cast();
        NUMBER.store(number, Ordering::Relaxed);
        OPENED.store(false, Ordering::Relaxed);
        POSITION.store(0, Ordering::Relaxed);
        FIRST_PAGE.store(page.as_ptr(), Ordering::Relaxed);
        // The loader closes what it has opened, or else this gate does.
        Ok(Self { page, fd: fd.into_raw_fd() })
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        FIRST_PAGE.store(std::ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: the page is this gate's own, and the handler uses it no more.
        let _ = unsafe { munmap(self.page.cast(), PAGE) };
        if !OPENED.load(Ordering::Relaxed) {
            // SAFETY: the loader gave up before it had opened the module, so the descriptor is still this gate's.
            unsafe { libc::close(self.fd) };
        }
    }
}

/// Answers the loader's system calls while a module is being loaded. See the table of the module.
///
/// # Async-signal safety
/// Yes: copies memory, no system call.
fn answer(number: i32, arguments: [usize; 6]) -> Option<isize> {
    let page = FIRST_PAGE.load(Ordering::Relaxed);
    if page.is_null() {
        return None;
    }
    let fd = MODULE_FD.load(Ordering::Relaxed);
    let is_module = || arguments[0] == usize::try_from(fd).unwrap_or(usize::MAX);
    match libc::c_long::from(number) {
        libc::SYS_openat if !OPENED.swap(true, Ordering::Relaxed) => isize::try_from(fd).ok(),
        libc::SYS_openat => Some(-(libc::ENOENT as isize)),
        libc::SYS_read if is_module() => {
            let position = POSITION.load(Ordering::Relaxed);
            let read = copy(page, position, arguments[1], arguments[2]);
            POSITION.store(position + read, Ordering::Relaxed);
            isize::try_from(read).ok()
        }
        libc::SYS_pread64 if is_module() => {
            isize::try_from(copy(page, arguments[3], arguments[1], arguments[2])).ok()
        }
        libc::SYS_newfstatat if is_module() => Some(describe(arguments[2])),
        libc::SYS_fstat if is_module() => Some(describe(arguments[1])),
        libc::SYS_newfstatat => Some(-(libc::ENOENT as isize)),
        // Not the loader's: the process is about to die of a signal, or to go, and would not.
        libc::SYS_rt_sigaction
        | libc::SYS_kill
        | libc::SYS_tkill
        | libc::SYS_tgkill
        | libc::SYS_exit
        | libc::SYS_exit_group => None,
        // The loader then says what it would have needed that for.
        _ => Some(-(libc::EPERM as isize)),
    }
}

/// Copies from the first page to where the loader wants it. Returns the bytes.
fn copy(page: *const u8, position: usize, to: usize, len: usize) -> usize {
    let position = position.min(PAGE);
    let len = len.min(PAGE - position);
    // SAFETY: `position` is within the page.
    let from = unsafe { page.add(position) };
    let to = std::ptr::with_exposed_provenance_mut::<u8>(to);
    // SAFETY: the page has that many bytes; the loader passes a buffer for them, as it would to the kernel.
    unsafe { to.copy_from_nonoverlapping(from, len) };
    len
}

/// Writes a `struct stat` of a regular file that is the only one on its device.
fn describe(to: usize) -> isize {
    // SAFETY: all-zero is a valid `stat`.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    stat.st_dev = libc::dev_t::MAX;
    stat.st_ino = libc::ino_t::from(NUMBER.load(Ordering::Relaxed)) + 1;
    stat.st_mode = libc::S_IFREG | 0o500;
    stat.st_nlink = 1;
    let to = std::ptr::with_exposed_provenance_mut::<libc::stat>(to);
    // SAFETY: the loader passes a buffer for a `stat`, as it would to the kernel.
    unsafe { to.write_unaligned(stat) };
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_are_read_in_pieces_and_end_with_the_page() {
        let page: Vec<u8> = (0..PAGE).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut buffer = vec![0u8; 832];
        let to = buffer.as_mut_ptr().expose_provenance();
        assert_eq!(copy(page.as_ptr(), 0, to, 832), 832);
        assert_eq!(buffer, page[..832]);
        assert_eq!(copy(page.as_ptr(), 4000, to, 832), 96);
        assert_eq!(buffer[..96], page[4000..]);
        assert_eq!(copy(page.as_ptr(), usize::MAX, to, 832), 0);
    }

    #[test]
    fn two_modules_are_two_files_and_nothing_is_answered_without_one() {
        let stat = |number| {
            NUMBER.store(number, Ordering::Relaxed);
            // SAFETY: all-zero is a valid `stat`.
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            assert_eq!(describe((&raw mut stat).expose_provenance()), 0);
            (stat.st_dev, stat.st_ino)
        };
        assert_ne!(stat(0), stat(1));
        let ask = |number| answer(i32::try_from(number).unwrap(), [0; 6]);
        assert_eq!(ask(libc::SYS_openat), None);
        let mut page = [0u8; PAGE];
        FIRST_PAGE.store(page.as_mut_ptr(), Ordering::Relaxed);
        // As for an executable stack.
        let answer = ask(libc::SYS_mprotect);
        let dying = [libc::SYS_rt_sigaction, libc::SYS_tgkill, libc::SYS_exit_group].map(ask);
        FIRST_PAGE.store(std::ptr::null_mut(), Ordering::Relaxed);
        assert_eq!(answer, Some(-1), "EPERM");
        assert_eq!(dying, [None; 3], "whoever is about to die is not kept from it");
    }
}
