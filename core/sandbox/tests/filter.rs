//! The filter against raw system calls, as code of an attacker's own making would do them: each in a child that has entered the sandbox. What is
//! denied ends the child by SIGSYS; what is allowed lets it say so.
#![expect(unsafe_code, reason = "makes system calls that no wrapper makes")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test without a harness")]

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_long, syscall};
use microfaas_control::CONTROL_FD;
use microfaas_control::sandbox::{Layer, SandboxPolicy};
use microfaas_preempt::contain;
use microfaas_sandbox::rules::{EVENTS, EVENTS_MAX, RECEIVED, RECEIVED_MAX};
use microfaas_sandbox::{Keep, enter};
use microfaas_sys::memfd;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork, getpid, getppid, pipe};

/// What a sealed child does; true where the system call succeeded. The argument is the module's descriptor.
type Case = fn(i32) -> bool;

/// A system call with whatever numbers it is given.
fn call(number: c_long, arguments: &[c_long]) -> c_long {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: in a test's child, which has nothing to lose: the kernel refuses the call, or it is harmless.
    unsafe { syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) }
}

const PAGE: c_long = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const RX: i32 = libc::PROT_READ | libc::PROT_EXEC;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn map(prot: i32, flags: i32, fd: i32) -> c_long {
    call(libc::SYS_mmap, &[0, PAGE, prot.into(), flags.into(), fd.into(), 0])
}

/// The address of something that lives through the call, as an argument.
fn at<T>(place: &T) -> c_long {
    std::ptr::from_ref(place).expose_provenance().cast_signed() as c_long
}

fn clock_of(id: c_long) -> bool {
    let time = Cell::new([0u64; 2]);
    call(libc::SYS_clock_gettime, &[id, at(&time)]) == 0
}

fn me() -> c_long {
    getpid().as_raw().into()
}

fn parent() -> c_long {
    getppid().as_raw().into()
}

fn dup3(from: i32, to: i32) -> bool {
    call(libc::SYS_dup3, &[from.into(), to.into(), libc::O_CLOEXEC.into()]) == c_long::from(to)
}

/// `getpid` by the 32-bit interface.
fn int80() -> bool {
    let mut value: u64 = 20;
    // SAFETY: a system call without arguments, which the filter refuses.
    unsafe { core::arch::asm!("int 0x80", inout("rax") value, options(nostack)) };
    value != 0
}

const DENIED: &[(&str, Case)] = &[
    ("openat", |_| call(libc::SYS_openat, &[libc::AT_FDCWD.into(), at(b"/\0")]) >= 0),
    ("open", |_| call(libc::SYS_open, &[at(b"/\0")]) >= 0),
    ("read", |fd| call(libc::SYS_read, &[fd.into()]) >= 0),
    ("write to standard error", |_| call(libc::SYS_write, &[2, at(b"x"), 1]) >= 0),
    ("close of another descriptor", |_| call(libc::SYS_close, &[0]) >= 0),
    ("close of a number behind those that are received", |_| {
        call(libc::SYS_close, &[(RECEIVED + RECEIVED_MAX.cast_signed()).into()]) >= 0
    }),
    ("close of the control socket", |_| call(libc::SYS_close, &[CONTROL_FD.into()]) >= 0),
    ("dup", |fd| call(libc::SYS_dup, &[fd.into()]) >= 0),
    ("dup3 to where modules come from", |_| dup3(EVENTS, RECEIVED)),
    ("dup3 of a lane's memory to an eventfd's place", |_| dup3(RECEIVED + 1, EVENTS)),
    ("dup3 in front of the eventfds' places", |_| dup3(RECEIVED, EVENTS - 1)),
    ("dup3 behind the eventfds' places", |_| dup3(RECEIVED, EVENTS + EVENTS_MAX.cast_signed())),
    ("a lane's memory executable", |fd| map(RX, libc::MAP_PRIVATE, fd + 1) >= 0),
    ("shared executable memory", |fd| map(RX, libc::MAP_SHARED, fd) >= 0),
    ("ftruncate", |fd| call(libc::SYS_ftruncate, &[fd.into()]) >= 0),
    ("fcntl", |fd| call(libc::SYS_fcntl, &[fd.into(), libc::F_GETFD.into()]) >= 0),
    ("memfd_create", |_| call(libc::SYS_memfd_create, &[at(b"x\0")]) >= 0),
    ("socket", |_| call(libc::SYS_socket, &[libc::AF_UNIX.into(), libc::SOCK_STREAM.into()]) >= 0),
    ("shmget", |_| call(libc::SYS_shmget, &[0, PAGE, 0o600]) >= 0),
    ("fork", |_| call(libc::SYS_fork, &[]) >= 0),
    ("vfork", |_| call(libc::SYS_vfork, &[]) >= 0),
    ("clone", |_| call(libc::SYS_clone, &[libc::SIGCHLD.into()]) >= 0),
    ("clone3", |_| call(libc::SYS_clone3, &[]) >= 0),
    ("execve", |_| call(libc::SYS_execve, &[at(b"/bin/true\0")]) >= 0),
    ("execveat of the module", |fd| {
        call(libc::SYS_execveat, &[fd.into(), at(b"\0"), 0, 0, libc::AT_EMPTY_PATH.into()]) >= 0
    }),
    ("kill of the parent", |_| call(libc::SYS_kill, &[parent()]) >= 0),
    ("stop of oneself", |_| call(libc::SYS_kill, &[me(), libc::SIGSTOP.into()]) >= 0),
    ("tgkill with another signal", |_| call(libc::SYS_tgkill, &[me(), me(), libc::SIGSTOP.into()]) >= 0),
    ("tgkill of another", |_| call(libc::SYS_tgkill, &[parent(), parent(), libc::SIGABRT.into()]) >= 0),
    ("pidfd_open", |_| call(libc::SYS_pidfd_open, &[parent()]) >= 0),
    ("ptrace", |_| call(libc::SYS_ptrace, &[16, parent()]) >= 0),
    ("process_vm_readv", |_| call(libc::SYS_process_vm_readv, &[parent()]) >= 0),
    ("bpf", |_| call(libc::SYS_bpf, &[]) >= 0),
    ("io_uring_setup", |_| call(libc::SYS_io_uring_setup, &[1]) >= 0),
    ("userfaultfd", |_| call(libc::SYS_userfaultfd, &[]) >= 0),
    ("perf_event_open", |_| call(libc::SYS_perf_event_open, &[]) >= 0),
    ("seccomp", |_| call(libc::SYS_seccomp, &[]) >= 0),
    ("prctl", |_| call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE.into(), 1]) >= 0),
    ("prlimit64", |_| call(libc::SYS_prlimit64, &[]) >= 0),
    ("setuid", |_| call(libc::SYS_setuid, &[]) >= 0),
    ("unshare", |_| call(libc::SYS_unshare, &[]) >= 0),
    ("personality", |_| call(libc::SYS_personality, &[0x0040_0000]) >= 0),
    ("rt_sigaction", |_| call(libc::SYS_rt_sigaction, &[libc::SIGALRM.into(), 0, 0, 8]) >= 0),
    ("rt_sigprocmask to block", |_| {
        call(libc::SYS_rt_sigprocmask, &[libc::SIG_BLOCK.into(), at(&u64::MAX), 0, 8]) >= 0
    }),
    ("rt_sigprocmask to set", |_| {
        call(libc::SYS_rt_sigprocmask, &[libc::SIG_SETMASK.into(), at(&u64::MAX), 0, 8]) >= 0
    }),
    ("sigaltstack", |_| call(libc::SYS_sigaltstack, &[]) >= 0),
    ("timer_delete", |_| call(libc::SYS_timer_delete, &[]) >= 0),
    ("setitimer", |_| call(libc::SYS_setitimer, &[]) >= 0),
    ("nanosleep", |_| call(libc::SYS_nanosleep, &[]) >= 0),
    ("futex to wait", |_| call(libc::SYS_futex, &[at(&1u32), libc::FUTEX_WAIT.into()]) >= 0),
    ("exit_group", |_| call(libc::SYS_exit_group, &[]) >= 0),
    ("exit", |_| call(libc::SYS_exit, &[]) >= 0),
    ("anonymous executable memory", |_| map(RX, ANONYMOUS, -1) >= 0),
    ("anonymous executable memory by the module's number", |fd| map(RX, ANONYMOUS, fd) >= 0),
    ("writable and executable memory", |_| map(RW | libc::PROT_EXEC, ANONYMOUS, -1) >= 0),
    ("a module writable and executable", |fd| map(RW | libc::PROT_EXEC, libc::MAP_PRIVATE, fd) >= 0),
    ("another file executable", |_| map(RX, libc::MAP_PRIVATE, 0) >= 0),
    ("anonymous shared memory", |_| map(RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1) >= 0),
    ("anonymous shared memory by the module's number", |fd| {
        map(RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, fd) >= 0
    }),
    ("anonymous memory that is shared and validated", |_| {
        map(RW, libc::MAP_SHARED_VALIDATE | libc::MAP_ANONYMOUS, -1) >= 0
    }),
    ("shared memory of a descriptor that is not received", |_| {
        map(libc::PROT_READ, libc::MAP_SHARED, 0) >= 0
    }),
    ("private memory of a descriptor that is not received", |_| {
        map(libc::PROT_READ, libc::MAP_PRIVATE, EVENTS) >= 0
    }),
    ("the CPU time of another process", |_| clock_of(!parent() << 3 | 2)),
    ("the CPU time of a thread, by its number", |_| clock_of(!me() << 3 | 6)),
    ("the clock of a device", |fd| clock_of((!fd << 3 | 3).into())),
    ("a clock without a name", |_| clock_of(16)),
    ("a thread's stack", |_| map(0, ANONYMOUS | libc::MAP_STACK, -1) >= 0),
    ("huge pages", |_| map(RW, ANONYMOUS | libc::MAP_HUGETLB, -1) >= 0),
    ("mprotect to executable", |_| call(libc::SYS_mprotect, &[map(RW, ANONYMOUS, -1), PAGE, RX.into()]) >= 0),
    ("pkey_mprotect", |_| call(libc::SYS_pkey_mprotect, &[map(RW, ANONYMOUS, -1), PAGE, RX.into(), -1]) >= 0),
    ("madvise to punch a hole", |_| {
        call(libc::SYS_madvise, &[map(RW, ANONYMOUS, -1), PAGE, libc::MADV_REMOVE.into()]) >= 0
    }),
    ("mlock", |_| call(libc::SYS_mlock, &[]) >= 0),
    ("the x32 interface", |_| call(libc::SYS_getpid | 0x4000_0000, &[]) >= 0),
    ("the 32-bit interface", |_| int80()),
    ("a number that does not exist", |_| call(4000, &[]) >= 0),
];

const ALLOWED: &[(&str, Case)] = &[
    ("anonymous memory", |_| {
        let page = map(RW, ANONYMOUS, -1);
        let read_only = call(libc::SYS_mprotect, &[page, PAGE, libc::PROT_READ.into()]);
        let given = call(libc::SYS_madvise, &[page, PAGE, libc::MADV_DONTNEED.into()]);
        let larger = call(libc::SYS_mremap, &[page, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE.into()]);
        page > 0 && read_only == 0 && given == 0 && call(libc::SYS_munmap, &[larger, 2 * PAGE]) == 0
    }),
    ("a module's code", |fd| map(RX, libc::MAP_PRIVATE | libc::MAP_DENYWRITE, fd) > 0),
    ("an eventfd's way to its place, and its end", |fd| {
        let place = EVENTS + 1;
        dup3(fd, place) && call(libc::SYS_close, &[place.into()]) == 0
    }),
    ("a lane's memory", |fd| {
        let page = map(libc::PROT_READ, libc::MAP_SHARED, fd);
        let populated = call(libc::SYS_madvise, &[page, PAGE, libc::MADV_POPULATE_READ.into()]);
        page > 0 && populated == 0
    }),
    ("closing the module", |fd| call(libc::SYS_close, &[fd.into()]) == 0),
    ("random numbers", |_| call(libc::SYS_getrandom, &[at(&Cell::new(0u64)), 8]) == 8),
    ("time, and CPU time of one's own", |_| {
        [
            libc::CLOCK_REALTIME,
            libc::CLOCK_MONOTONIC,
            libc::CLOCK_PROCESS_CPUTIME_ID,
            libc::CLOCK_THREAD_CPUTIME_ID,
            libc::CLOCK_BOOTTIME,
            libc::CLOCK_TAI,
        ]
        .into_iter()
        .all(|id| clock_of(id.into()))
    }),
    ("waking", |_| call(libc::SYS_futex, &[at(&1u32), libc::FUTEX_WAKE.into(), 1]) == 0),
    ("unblocking", |_| call(libc::SYS_rt_sigprocmask, &[libc::SIG_UNBLOCK.into(), at(&0u64), 0, 8]) == 0),
    ("asking for one's number", |_| call(libc::SYS_getpid, &[]) > 0 && call(libc::SYS_gettid, &[]) > 0),
];

/// Faults of the worker's own, handlers installed.
const FAULTS: &[(&str, Signal, Case)] = &[
    ("a wild access", Signal::SIGSEGV, |_| {
        // SAFETY: none; it is to fault.
        unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() == 0 }
    }),
    ("an illegal instruction", Signal::SIGILL, |_| {
        // SAFETY: none; it is to fault.
        unsafe { core::arch::asm!("ud2") };
        true
    }),
    ("an arithmetic trap", Signal::SIGFPE, |_| {
        // SAFETY: none; it is to fault.
        unsafe { core::arch::asm!("xor edx, edx", "div edx", out("edx") _, out("eax") _) };
        true
    }),
    ("a misaligned access where they are checked", Signal::SIGBUS, |_| {
        // SAFETY: none; it is to fault.
        unsafe {
            core::arch::asm!("pushfq", "or qword ptr [rsp], 0x40000", "popfq", "mov eax, [rsp + 1]", out("eax") _)
        };
        true
    }),
    ("a breakpoint", Signal::SIGTRAP, |_| {
        // SAFETY: none; it is to fault.
        unsafe { core::arch::asm!("int3") };
        true
    }),
    ("a forbidden system call", Signal::SIGSYS, |_| call(libc::SYS_getppid, &[]) >= 0),
];

/// How a sealed child ended, and what it said of its call. `handlers`: with the worker's for faults.
fn in_child(case: Case, handlers: bool) -> (WaitStatus, String) {
    let (reader, writer) = pipe().unwrap();
    let module = memfd::from_bytes(c"module", &[0xc3; 4096]).unwrap();
    let parent = getpid();
    // SAFETY: this program has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop(reader);
            if handlers {
                std::mem::forget(contain::install(None).unwrap());
            }
            child(case, &writer, &module, parent)
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut said = String::new();
            File::from(reader).read_to_string(&mut said).unwrap();
            (waitpid(child, None).unwrap(), said)
        }
    }
}

fn child(case: Case, writer: &OwnedFd, module: &OwnedFd, parent: Pid) -> ! {
    // A child that hangs dies of this, and not of SIGSYS.
    alarm::set(60);
    for number in [CONTROL_FD, EVENTS] {
        // SAFETY: the child uses no descriptors but these, the module and the pipe, which have other numbers or are the same.
        unsafe { libc::dup2(writer.as_raw_fd(), number) };
    }
    // SAFETY: open for the rest of the child's life.
    let control = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
    // SAFETY: as above.
    let event = unsafe { BorrowedFd::borrow_raw(EVENTS) };
    let say = |text: &str| {
        // SAFETY: writes a live string.
        unsafe { libc::write(EVENTS, text.as_ptr().cast(), text.len()) };
    };
    let keep = Keep {
        control,
        events: &[event],
        module: Some(module.as_fd()),
        namespaces: &[],
        node_pid: parent.as_raw().cast_unsigned(),
    };
    // SAFETY: the child uses no descriptor but these.
    match unsafe { enter(&SandboxPolicy::default(), &keep) } {
        Ok(sealed) if sealed.report.is_active(Layer::SystemCalls) => {
            say("sealed");
            if case(sealed.module_fd) {
                say(" ok");
            }
        }
        Ok(_) => say("no filter"),
        Err(error) => say(&error.to_string()),
    }
    // SAFETY: nothing is to be cleaned up; a sealed child ends by SIGSYS here, if it got so far.
    unsafe { libc::_exit(0) }
}

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        if !std::env::args().any(|argument| argument == "--ignored") {
            println!("filter: test");
        }
        return;
    }
    let by_sigsys = |status| matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _));
    for (name, case) in DENIED {
        let (status, said) = in_child(*case, false);
        assert!(by_sigsys(status) && said == "sealed", "{name}: {status:?}, said: {said}");
    }
    for (name, case) in ALLOWED {
        let (status, said) = in_child(*case, false);
        assert!(by_sigsys(status) && said == "sealed ok", "{name}: {status:?}, said: {said}");
    }
    // With the worker's handlers in force, a fault that is no call's ends it by the signal's own name.
    for (name, signal, fault) in FAULTS {
        let (status, said) = in_child(*fault, true);
        let by_signal = matches!(status, WaitStatus::Signaled(_, by, _) if by == *signal);
        assert!(by_signal && said == "sealed", "{name}: {status:?}, said: {said}");
    }
    // An abort ends by its own signal.
    let (status, said) = in_child(|_| std::process::abort(), false);
    assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGABRT, _)), "{status:?}, said: {said}");
}
