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
//! | `exit`, `quick_exit`, `_Exit` | runs nothing that others have registered |
//! | `fork`, `posix_spawn`, `posix_spawnp`, `pthread_create` | a new task, which is refused |
//! | `getaddrinfo` | a socket, which is refused |
//! | `getpwnam_r`, `getpwuid_r`, `realpath` | the file system, which is refused |
//! | `putenv`, `setenv` | fails: the environment is empty and stays so |
//! | `unsetenv`, `clearenv` | nothing: likewise |
//! | `atexit`, `at_quick_exit`, `on_exit`, `pthread_atfork`, destructors of C++ statics | nothing: no call sees the end of the process |
#![expect(unsafe_code, reason = "system calls, and a trap where nothing else has ended the call")]

use core::ffi::{c_char, c_int, c_long, c_void};
use core::ptr::null_mut;

/// `abort(3)`: ends the call with SIGABRT.
pub extern "C" fn abort() -> ! {
    // SAFETY: signals this thread. A worker's handler does not return to here.
    unsafe { libc::raise(libc::SIGABRT) };
    // Outside a worker the signal may be blocked or ignored.
    trap()
}

/// `exit(3)`, `quick_exit(3)`, `_Exit(3)`: asks for the end of the process, which a worker refuses by ending the call.
pub extern "C" fn exit(status: c_int) -> ! {
    // SAFETY: takes a number.
    unsafe { libc::_exit(status) }
}

/// `fork(2)`.
pub extern "C" fn fork() -> libc::pid_t {
    refused(libc::SYS_clone3);
    -1
}

/// `posix_spawn(3)`, `posix_spawnp(3)`, `pthread_create(3)`: what the three have in common is that they return an error's number.
pub extern "C" fn spawn() -> c_int {
    refused(libc::SYS_clone3);
    libc::EAGAIN
}

/// `getaddrinfo(3)`.
pub extern "C" fn getaddrinfo() -> c_int {
    refused(libc::SYS_socket);
    libc::EAI_FAIL
}

/// `getpwnam_r(3)`, `getpwuid_r(3)`.
pub extern "C" fn getpw() -> c_int {
    open_root();
    libc::EACCES
}

/// `realpath(3)`.
pub extern "C" fn realpath() -> *mut c_char {
    open_root();
    null_mut()
}

/// `putenv(3)`, `setenv(3)`.
pub extern "C" fn setenv() -> c_int {
    // SAFETY: the thread's own, for its whole life.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: writable, as above.
    unsafe { errno.write(libc::EPERM) };
    -1
}

/// `unsetenv(3)`, `clearenv(3)`.
pub extern "C" fn unsetenv() -> c_int {
    0
}

/// `atexit(3)` and its like: says yes, and keeps nothing.
pub extern "C" fn register() -> c_int {
    0
}

/// Asks the kernel for what no function may do; it reads no memory. Outside a worker it fails for its arguments, which are all zero.
fn refused(number: c_long) {
    // SAFETY: with these arguments `clone3` and `socket` are invalid, and change nothing.
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
