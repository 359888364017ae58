//! The C library's functions that keep state for the whole process.
//!
//! All modules of a worker share that state, and no reset puts it back. A call that is suspended in the middle of changing it, or ended there, leaves it to the
//! next as it is: glibc's `abort`, continued after another call has gone through it, ends in an instruction that looks like a wild access; what its `getaddrinfo` or `fork` holds
//! stays locked for ever; and a variable that one call sets would be read by another. So a module carries definitions without state, hidden inside it as those of
//! [`libc_memory`](super::libc_memory). Where no function may do what is asked, they ask the kernel for it at once, and the worker ends the call with the name of that
//! system call, as it would have in the end.
//!
//! | function | here |
//! | --- | --- |
//! | `abort` | signals this thread, and does nothing else |
//! | `__assert_fail`, `__stack_chk_fail`, `__chk_fail` | as `abort`, without a word |
//! | `exit`, `quick_exit`, `_Exit`, `pthread_exit` | runs nothing that others have registered |
//! | `fork`, `posix_spawn`, `pidfd_spawn`, `pthread_create`, `system` and their like | a new task, which is refused |
//! | what fills a `posix_spawn_file_actions_t` | nothing: it would be a list in the C library's own heap, and nobody reads it |
//! | `getaddrinfo`, `getnameinfo`, `gethostbyname`, `syslog` | a socket, which is refused |
//! | users and groups by name or number, `realpath`, `getcwd`, `fopen`, `popen`, `dlopen`, `pthread_getattr_np` | the file system, which is refused |
//! | `getenv`, `environ` | the environment is empty |
//! | `putenv`, `setenv` | fails: and stays so |
//! | `unsetenv`, `clearenv`, `fflush`, `tzset`, `__res_init` | nothing to do |
//! | `atexit`, `at_quick_exit`, `on_exit`, `pthread_atfork`, destructors of C++ statics | nothing: no call sees the end of the process |
//! | `dlsym` | knows [`SYMBOLS`]; the C library's own takes locks, and memory for the text of a failure |
//! | `strerror_r` | the same words, without a look for a translation of them |
//! | `write` to standard error while a panic is under way | nobody's: the standard library has a word there before it aborts, and the abort is what is told |
//! | what reads from or writes to a stream: `printf`, `fwrite`, `getline`, … | a read or write, which is refused |
//! | `open_memstream`, `fmemopen`, `fopencookie` | no memory for a stream |
#![expect(unsafe_code, reason = "system calls, and a trap where nothing else has ended the call")]

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::ptr::null_mut;

/// `abort(3)`: ends the call with SIGABRT.
pub extern "C" fn abort() -> ! {
    // SAFETY: signals this thread. A worker's handler does not return to here.
    unsafe { libc::raise(libc::SIGABRT) };
    // Outside a worker the signal may be blocked or ignored.
    trap()
}

/// `exit(3)`, `quick_exit(3)`, `_Exit(3)`, `pthread_exit(3)`: asks for the end of the process, which a worker refuses by ending the call.
pub extern "C" fn exit(status: c_int) -> ! {
    // SAFETY: takes a number.
    unsafe { libc::_exit(status) }
}

/// `fork(2)`, `vfork(2)`, `system(3)`: what they have in common is that they return -1.
pub extern "C" fn fork() -> libc::pid_t {
    refused(libc::SYS_clone3);
    -1
}

/// `posix_spawn(3)`, `posix_spawnp(3)`, `pidfd_spawn`, `pidfd_spawnp`, `pthread_create(3)`, `thrd_create(3)`: what they have in common is that they return an error's number.
pub extern "C" fn spawn() -> c_int {
    refused(libc::SYS_clone3);
    libc::EAGAIN
}

/// `getaddrinfo(3)`, `getnameinfo(3)`.
pub extern "C" fn getaddrinfo() -> c_int {
    refused(libc::SYS_socket);
    libc::EAI_FAIL
}

/// `gethostbyname(3)` and its like, `openlog(3)`, `syslog(3)`.
pub extern "C" fn no_socket() -> *mut c_void {
    refused(libc::SYS_socket);
    null_mut()
}

/// `getpwnam_r(3)`, `getpwuid_r(3)`, `getgrnam_r(3)`, `getgrgid_r(3)`, `pthread_getattr_np(3)`, which reads a file.
pub extern "C" fn no_entry() -> c_int {
    open_root();
    libc::EACCES
}

/// `realpath(3)`, `fopen(3)`, `dlopen(3)`, `getpwnam(3)` and their like: what they have in common is that they return a pointer.
pub extern "C" fn no_file() -> *mut c_void {
    open_root();
    null_mut()
}

/// `getcwd(3)`, `get_current_dir_name(3)`.
pub extern "C" fn getcwd() -> *mut c_char {
    refused(libc::SYS_getcwd);
    null_mut()
}

/// `open_memstream(3)` and its like: a stream is an entry in a list of the process.
pub extern "C" fn no_stream() -> *mut c_void {
    fail(libc::ENOMEM);
    null_mut()
}

/// `printf(3)`, `fwrite(3)`, `perror(3)` and their like: there are no streams but those that a process begins with.
pub extern "C" fn no_output() -> c_int {
    refused(libc::SYS_write);
    -1
}

/// `write(2)`. The last words of a panic are dropped: a call is to end by its abort, and not by what is said before.
///
/// # Safety
/// `bytes` is readable for `len` bytes.
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    if fd == libc::STDERR_FILENO && std::thread::panicking() {
        return len.cast_signed();
    }
    // SAFETY: the caller's promise.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, bytes, len) };
    // Of as many bits.
    isize::try_from(written).unwrap_or(-1)
}

/// `getline(3)`, `fgets(3)`, `getchar(3)` and their like: likewise. To those that return a pointer or a length, 0 says that nothing was read.
pub extern "C" fn no_input() -> isize {
    refused(libc::SYS_read);
    0
}

/// `getenv(3)`, `secure_getenv(3)`: there is no such variable.
pub extern "C" fn getenv() -> *mut c_char {
    null_mut()
}

/// `putenv(3)`, `setenv(3)`.
pub extern "C" fn setenv() -> c_int {
    fail(libc::EPERM);
    -1
}

/// What has nothing to do, and says that it is done: see the module's table.
pub extern "C" fn nothing() -> c_int {
    0
}

/// What [`dlsym`] finds, as `getrandom`, the crate, looks it up.
pub const SYMBOLS: [&CStr; 1] = [c"getrandom"];

/// `dlsym(3)`, `dlvsym(3)`.
///
/// # Safety
/// `name` is a string.
pub unsafe extern "C" fn dlsym(_: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    if SYMBOLS.contains(&name) { libc::getrandom as *const () as *mut c_void } else { null_mut() }
}

/// `dlerror(3)`.
pub extern "C" fn dlerror() -> *const c_char {
    c"modules look nothing up".as_ptr()
}

/// `strerror_r(3)` of POSIX, which is `__xpg_strerror_r` in the C library.
///
/// # Safety
/// `text` may be written for `len` bytes.
pub unsafe extern "C" fn strerror_r(number: c_int, text: *mut c_char, len: usize) -> c_int {
    unsafe extern "C" {
        /// Constants, and nothing else.
        safe fn strerrordesc_np(number: c_int) -> *const c_char;
    }
    let constant = strerrordesc_np(number);
    let mut buffer = [0; 32];
    let (words, answer) = if constant.is_null() {
        (unknown(number, &mut buffer), libc::EINVAL)
    } else {
        // SAFETY: not null, so one of the C library's constants.
        let words = unsafe { CStr::from_ptr(constant) }.to_bytes();
        (words, if words.len() < len { 0 } else { libc::ERANGE })
    };
    let Some(room) = len.checked_sub(1) else { return answer };
    let cut = words.len().min(room);
    // SAFETY: the caller's promise: `cut` is less than `len`. A constant or a local of ours is not the caller's buffer.
    unsafe { text.cast::<u8>().copy_from_nonoverlapping(words.as_ptr(), cut) };
    // SAFETY: within the `len` bytes.
    let end = unsafe { text.add(cut) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    answer
}

/// `Unknown error` and the number, without the machinery of formatting.
fn unknown(number: c_int, buffer: &mut [u8; 32]) -> &[u8] {
    const WORDS: &[u8] = b"Unknown error ";
    let mut rest = number.unsigned_abs();
    let mut start = buffer.len();
    loop {
        start -= 1;
        // Less than 10.
        buffer[start] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        buffer[start] = b'-';
    }
    start -= WORDS.len();
    buffer[start..start + WORDS.len()].copy_from_slice(WORDS);
    &buffer[start..]
}

/// Sets `errno`.
pub(super) fn fail(error: c_int) {
    // SAFETY: the thread's own, for its whole life.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: writable, as above.
    unsafe { errno.write(error) };
}

/// Asks the kernel for what no function may do; it reads no memory. Outside a worker it fails for its arguments, which are all zero.
fn refused(number: c_long) {
    // SAFETY: with these arguments `clone3`, `socket` and `getcwd` are invalid, `read` and `write` of no bytes, and change nothing.
    unsafe { libc::syscall(number, null_mut::<c_void>(), 0usize, 0usize) };
}

fn open_root() {
    // SAFETY: the path is a string; what is opened outside a worker stays open, which harms nobody.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
}

fn trap() -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: raises SIGILL.
    unsafe {
        core::arch::asm!("ud2", options(noreturn, nomem, nostack))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: raises SIGILL.
    unsafe {
        core::arch::asm!("udf #0", options(noreturn, nomem, nostack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_words_of_the_c_library() {
        for number in (-3..140).chain([c_int::MIN, c_int::MAX]) {
            for len in [0, 1, 5, 22, 200] {
                let (mut ours, mut theirs) = ([b'x'; 200], [b'x'; 200]);
                // SAFETY: `len` bytes of a buffer of the test's own.
                let said = unsafe { strerror_r(number, ours.as_mut_ptr().cast(), len) };
                // SAFETY: as above.
                let expected = unsafe { libc::strerror_r(number, theirs.as_mut_ptr().cast(), len) };
                assert_eq!((said, &ours[..]), (expected, &theirs[..]), "{number} in {len} bytes");
            }
        }
    }

    #[test]
    fn no_symbol_is_found_but_those_that_are_known() {
        // SAFETY: a string.
        let find = |name: &CStr| unsafe { dlsym(null_mut(), name.as_ptr()) };
        assert_eq!(find(c"getrandom").addr(), libc::getrandom as *const () as usize);
        assert!(find(c"__pthread_get_minstack").is_null() && find(c"").is_null());
    }
}
