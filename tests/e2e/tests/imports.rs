//! What modules use of the C library. A call can be stopped in the middle of it, and no reset reaches there: so each function that a module does not bring along itself
//! is on a list, with the reason why it leaves nothing behind.
//!
//! Checked are the modules of the tests, and the standard library of the installed toolchain, for whatever a safe program could use of it. Modules with code in C may use
//! more (see SECURITY.md); so this is a test and no condition for loading.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use microfaas_e2e::{Watchdog, attacks};
use object::{Object, ObjectSymbol};

/// Why it may be used, and what.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "reads and writes what it is given, or constants, and nothing else",
        &[
            "bcmp",
            "gnu_get_libc_version",
            "memcmp",
            "memcpy",
            "memmove",
            "memset",
            "posix_spawnattr_destroy",
            "posix_spawnattr_init",
            "posix_spawnattr_setflags",
            "posix_spawnattr_setpgroup",
            "posix_spawnattr_setsigdefault",
            "pthread_attr_destroy",
            "pthread_attr_getguardsize",
            "pthread_attr_getstack",
            "pthread_attr_init",
            "pthread_attr_setstacksize",
            "sigaddset",
            "sigemptyset",
            "strerrordesc_np",
            "strlen",
            "strnlen",
        ],
    ),
    (
        "works on the module's own memory; who would have to wait is refused that",
        &["pthread_mutex_lock", "pthread_mutex_unlock"],
    ),
    ("reads what does not change while a worker runs", &["getauxval", "pthread_self", "sysconf"]),
    (
        "the thread's own error number; kept for a call that is suspended, and cleared for one that begins",
        &["__errno_location"],
    ),
    ("writes the thread's error number and nothing else", &["log", "pow", "sin"]),
    (
        "a system call and no more, allowed or refused",
        &[
            "__fxstat64",
            "__fxstatat64",
            "__lxstat64",
            "__xstat64",
            "_exit",
            "accept4",
            "bind",
            "chdir",
            "chmod",
            "chown",
            "chroot",
            "clock_gettime",
            "clock_nanosleep",
            "close",
            "connect",
            "copy_file_range",
            "dup",
            "dup2",
            "fchmod",
            "fchown",
            "fcntl",
            "fdatasync",
            "flock",
            "fstat64",
            "fstatat64",
            "fsync",
            "ftruncate64",
            "futimens",
            "gethostname",
            "getpeername",
            "getpid",
            "getppid",
            "getrandom",
            "getsockname",
            "getsockopt",
            "gettid",
            "getuid",
            "ioctl",
            "kill",
            "lchown",
            "linkat",
            "listen",
            "lseek64",
            "lstat64",
            "mkdir",
            "mkfifo",
            "mmap64",
            "mprotect",
            "munmap",
            "open",
            "open64",
            "openat64",
            "pause",
            "pidfd_getpid",
            "pipe2",
            "poll",
            "pread64",
            "preadv",
            "pwrite64",
            "pwritev",
            "read",
            "readlink",
            "readv",
            "recv",
            "recvfrom",
            "recvmsg",
            "rename",
            "rmdir",
            "sched_getaffinity",
            "sched_yield",
            "send",
            "sendfile64",
            "sendmsg",
            "sendto",
            "setgid",
            "setgroups",
            "setpgid",
            "setsid",
            "setsockopt",
            "setuid",
            "shutdown",
            "sigaction",
            "sigaltstack",
            "signal",
            "socket",
            "socketpair",
            "splice",
            "stat64",
            "statx",
            "symlink",
            "syscall",
            "unlink",
            "unlinkat",
            "utimensat",
            "waitid",
            "waitpid",
            "writev",
        ],
    ),
    ("signals this thread, without a lock where it is the only one", &["raise"]),
    (
        "the system call that is refused comes before the first change of anything",
        &["execvp", "fdopendir", "opendir"],
    ),
    (
        "needs what nobody gets: an open directory, a thread, an answer about a host's name",
        &[
            "closedir",
            "dirfd",
            "freeaddrinfo",
            "gai_strerror",
            "pthread_detach",
            "pthread_join",
            "pthread_setname_np",
            "readdir64",
        ],
    ),
    (
        "its lock is of the kind that its holder may take again, and the worker is its only thread",
        &["dl_iterate_phdr"],
    ),
    (
        "unwinding is on the stack; what it does once in a process, the worker has done before the first call",
        &[
            "_Unwind_Backtrace",
            "_Unwind_DeleteException",
            "_Unwind_FindEnclosingFunction",
            "_Unwind_GetCFA",
            "_Unwind_GetDataRelBase",
            "_Unwind_GetIP",
            "_Unwind_GetIPInfo",
            "_Unwind_GetLanguageSpecificData",
            "_Unwind_GetRegionStart",
            "_Unwind_GetTextRelBase",
            "_Unwind_RaiseException",
            "_Unwind_Resume",
            "_Unwind_SetGR",
            "_Unwind_SetIP",
        ],
    ),
    ("the worker has had the module's thread-local block allocated", &["__tls_get_addr"]),
    (
        "of loading and unloading, which is the worker's",
        &["_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__cxa_finalize", "__gmon_start__"],
    ),
];

fn allowed() -> BTreeSet<&'static str> {
    ALLOWED.iter().flat_map(|(_, names)| names.iter().copied()).collect()
}

/// What modules define in place of the C library: the list in the SDK.
fn brought_along() -> BTreeSet<&'static str> {
    let list = include_str!("../../../core/sdk/src/glue/export.rs");
    let names = list.lines().filter_map(|line| line.trim().split_once(" = libc_").map(|(name, _)| name));
    names.chain(["environ"]).collect()
}

fn imports(library: &Path) -> BTreeSet<String> {
    let bytes = std::fs::read(library).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let undefined = file.dynamic_symbols().filter(ObjectSymbol::is_undefined);
    undefined
        .filter_map(|symbol| symbol.name().ok().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .collect()
}

/// The standard library as a shared library of its own.
fn standard_library() -> PathBuf {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).args(["--print", "target-libdir"]).output().unwrap();
    let folder = PathBuf::from(String::from_utf8(said.stdout).unwrap().trim());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("libstd-") && name.ends_with(".so")
    };
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(is_it)
        .expect("rustc comes with its standard library")
}

#[test]
fn every_name_is_on_one_list_and_once() {
    let (allowed, brought) = (allowed(), brought_along());
    assert_eq!(
        allowed.len(),
        ALLOWED.iter().map(|(_, names)| names.len()).sum::<usize>(),
        "a name is there twice"
    );
    assert!(brought.len() > 80, "the SDK's list was not found");
    let both: Vec<_> = allowed.intersection(&brought).collect();
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn modules_use_nothing_of_the_c_library_that_keeps_state() {
    let _watchdog = Watchdog::new(Duration::from_secs(600));
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let functions = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../functions"));
    let crates = ["attacks", "outlaw", "residue"].map(|name| functions.join(name));
    let modules = attacks::build(scratch, crates, "imports-modules");
    let cases = attacks::build_cases(scratch, &attacks::own_cases());
    let mut seen = 0;
    for folder in [modules, cases] {
        for module in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let imports = imports(&module);
            let unknown: Vec<_> = imports.iter().filter(|name| !allowed().contains(&***name)).collect();
            assert!(unknown.is_empty(), "{}: {unknown:?}", module.display());
            assert!(imports.contains("memcpy"), "{}: no imports found", module.display());
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} modules");
}

#[test]
fn the_standard_library_uses_nothing_of_the_c_library_that_keeps_state() {
    let library = standard_library();
    let imports = imports(&library);
    let known: BTreeSet<&str> = &allowed() | &brought_along();
    let unknown: Vec<_> = imports.iter().filter(|name| !known.contains(&***name)).collect();
    assert!(unknown.is_empty(), "{}: {unknown:?}", library.display());
    assert!(imports.contains("pthread_key_create"), "its imports were not found");
}
