//! The system calls that a sealed worker can make. Everything else is a SIGSYS, which ends the call that caused it and not the worker.
//!
//! A line says which arguments are allowed, who needs it and why. What is *not* here matters most: nothing opens a file or a socket, starts a
//! process or a thread, sends a signal to others, changes a signal's handler or blocks one, waits on an ordinary futex (with one thread that is a
//! deadlock), sleeps, or ends the process. `tests/e2e/tests/sandbox.rs` shows that each line is used, and
//! `tests/filter.rs` what is denied.

use std::os::fd::RawFd;

use microfaas_control::CONTROL_FD;

/// Where received descriptors land: the lowest numbers that are free. The filter tells descriptors apart by their numbers, so these are fixed.
///
/// The first of them is the one that can be mapped executable. It is never anything but a sealed module or an eventfd, which cannot be mapped: a packet with
/// a module has nothing else, and one with a lane begins with the eventfd, so that whatever a worker closes before it receives, the kernel gives a lane's
/// memory a higher number.
pub const RECEIVED: RawFd = CONTROL_FD + 1;
/// How many there can be beside one packet.
pub const RECEIVED_MAX: u32 = 4;
/// Where the hosts' eventfds are, one for each lane.
pub const EVENTS: RawFd = 128;
/// How many.
pub const EVENTS_MAX: u32 = 128;

const _: () = assert!(RECEIVED.cast_unsigned().is_multiple_of(RECEIVED_MAX), "`among` relies on it");
const _: () = assert!(EVENTS.cast_unsigned().is_multiple_of(EVENTS_MAX), "`among` relies on it");

/// The clocks that have names. Numbers above and negative ones are clocks of devices, processes and threads.
const CLOCKS: u64 = 16;

/// Who makes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// The worker between calls.
    Worker,
    /// The system's loader, on behalf of a `Load`.
    Loader,
    /// Code of functions, through its standard library or the C library.
    Function,
}

/// A value that is known only when the filter is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// This number.
    Is(u64),
    /// The worker's process id.
    ProcessId,
    /// Its only thread's id.
    ThreadId,
}

/// A condition on an argument: where `mask` has a 1, the argument is `value`.
#[derive(Debug, Clone, Copy)]
pub struct When {
    /// From 0.
    pub argument: u32,
    /// Which bits are compared.
    pub mask: u64,
    /// With what.
    pub value: Value,
}

/// One line of the list.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Name of the system call.
    pub call: &'static str,
    /// All of these hold; none means any arguments.
    pub when: &'static [When],
    /// Who needs it.
    pub user: User,
    /// What for, and why it does no harm where that is not plain.
    pub reason: &'static str,
}

/// An argument of type `int`, of which the kernel ignores the upper half.
const fn int(argument: u32, value: Value) -> When {
    When { argument, mask: 0xffff_ffff, value }
}

/// None of these bits is set.
const fn without(argument: u32, bits: i32) -> When {
    When { argument, mask: bits.cast_unsigned() as u64, value: Value::Is(0) }
}

/// All of these bits are set, and none of those.
const fn flags(argument: u32, unset: i32, set: i32) -> When {
    When {
        argument,
        mask: (unset | set).cast_unsigned() as u64,
        value: Value::Is(set.cast_unsigned() as u64),
    }
}

const fn number(value: i32) -> Value {
    Value::Is(value.cast_unsigned() as u64)
}

/// A descriptor of an aligned block of numbers.
const fn among(argument: u32, first: RawFd, count: u32) -> When {
    When { argument, mask: !(count - 1) as u64, value: number(first) }
}

const fn rule(call: &'static str, when: &'static [When], user: User, reason: &'static str) -> Rule {
    Rule { call, when, user, reason }
}

/// `MAP_STACK` is how the C library begins a thread: refused here, the attempt leaves nothing behind.
const MAP_FORBIDDEN: i32 = libc::MAP_HUGETLB | libc::MAP_LOCKED | libc::MAP_GROWSDOWN | libc::MAP_STACK;

/// The list. See the module.
pub const RULES: &[Rule] = &[
    // Signals.
    rule("rt_sigreturn", &[], User::Worker, "the way back from the handlers that contain faults"),
    // Memory. What one maps is one's own: no descriptors but modules' and lanes' can be mapped, a lane's down and bulk regions for reading only.
    rule(
        "mmap",
        &[without(2, libc::PROT_EXEC), flags(3, MAP_FORBIDDEN | libc::MAP_SHARED, libc::MAP_ANONYMOUS)],
        User::Worker,
        "arenas and the C library's heap; private, as what is shared does not count against `data_bytes_max`",
    ),
    rule(
        "mmap",
        &[
            without(2, libc::PROT_EXEC),
            without(3, MAP_FORBIDDEN | libc::MAP_ANONYMOUS),
            among(4, RECEIVED, RECEIVED_MAX),
        ],
        User::Worker,
        "a module's data, the lanes of new hosts; no more memory than the node has given",
    ),
    rule(
        "mmap",
        &[
            without(2, libc::PROT_WRITE),
            without(3, libc::MAP_ANONYMOUS | libc::MAP_SHARED),
            int(4, number(RECEIVED)),
        ],
        User::Loader,
        "a module's code; executable memory comes from a sealed module or not at all, and is never writable",
    ),
    rule(
        "munmap",
        &[],
        User::Worker,
        "lanes of hosts that have gone, arenas of modules that were refused, the C library's heap",
    ),
    rule("mremap", &[], User::Worker, "the C library's heap, when a large vector grows"),
    rule("brk", &[], User::Worker, "the C library's heap"),
    rule(
        "mprotect",
        &[without(2, libc::PROT_EXEC)],
        User::Worker,
        "the heap of `init`, read-only until a call writes to it; the loader's read-only data",
    ),
    rule(
        "madvise",
        &[int(2, number(libc::MADV_DONTNEED))],
        User::Worker,
        "gives back what a call used of its arena",
    ),
    rule(
        "madvise",
        &[int(2, number(libc::MADV_POPULATE_READ))],
        User::Worker,
        "a new lane's pages, before its first call; no more than touching them",
    ),
    rule(
        "madvise",
        &[int(2, number(libc::MADV_POPULATE_WRITE))],
        User::Worker,
        "as above, of the region that the worker writes",
    ),
    // Waiting and waking, on the words of lanes.
    rule(
        "futex_waitv",
        &[],
        User::Worker,
        "sleeps until a host rings; the deadline is at most a second away",
    ),
    rule(
        "futex",
        &[int(1, number(libc::FUTEX_WAKE))],
        User::Worker,
        "wakes a host that waits for a completion",
    ),
    rule(
        "futex",
        &[int(1, number(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG))],
        User::Function,
        "what is done once only wakes its waiters when it is done, whether there are any or not; unwinding has such a thing",
    ),
    rule("write", &[among(0, EVENTS, EVENTS_MAX)], User::Worker, "wakes a host with an event loop"),
    // The node.
    rule(
        "recvmsg",
        &[int(0, number(CONTROL_FD))],
        User::Worker,
        "what the node says, and the modules and lanes it sends",
    ),
    rule("sendmsg", &[int(0, number(CONTROL_FD))], User::Worker, "answers to the node, which distrusts them"),
    rule(
        "dup3",
        &[int(0, number(RECEIVED)), among(1, EVENTS, EVENTS_MAX), int(2, number(libc::O_CLOEXEC))],
        User::Worker,
        "puts the eventfd of a new lane where it can be written to; it is the first of what comes with the lane",
    ),
    rule(
        "close",
        &[among(0, RECEIVED, RECEIVED_MAX)],
        User::Worker,
        "descriptors of modules and lanes, once they are mapped",
    ),
    rule("close", &[among(0, EVENTS, EVENTS_MAX)], User::Worker, "the eventfd of a host that has gone"),
    // Clocks and timers.
    rule(
        "clock_gettime",
        &[When { argument: 0, mask: !(CLOCKS - 1) & 0xffff_ffff, value: Value::Is(0) }],
        User::Function,
        "time, by clocks of the machine and of oneself, not those of other processes; most readings make no system call, but the thread's CPU time and some virtual machines' clocks do",
    ),
    rule("timer_settime", &[], User::Worker, "the quantum timer; the node's watchdog stands behind it"),
    // Functions.
    rule("getrandom", &[], User::Function, "the seeds of hash maps"),
    rule("getpid", &[], User::Function, "abort asks for it before it signals"),
    rule("gettid", &[], User::Function, "abort asks for it before it signals"),
    rule(
        "rt_sigprocmask",
        &[int(0, number(libc::SIG_UNBLOCK))],
        User::Worker,
        "an abort of its own unblocks its signal; unblocking never hides one",
    ),
    rule(
        "tgkill",
        &[int(0, Value::ProcessId), int(1, Value::ThreadId), int(2, number(libc::SIGABRT))],
        User::Function,
        "abort signals itself, and is contained as such",
    ),
];

/// System calls that safe code never makes, not even by way of the standard library: whoever tries one runs code of his own making, and the
/// worker's memory cannot be trusted any more. Such a call is denied as any other is, and the worker is replaced besides.
pub const NEVER_LEGITIMATE: &[&str] = &[
    "add_key",
    "bpf",
    "delete_module",
    "finit_module",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_load",
    "keyctl",
    "mount",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "prctl",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "request_key",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "seccomp",
    "setns",
    "sigaltstack",
    "timer_create",
    "timer_delete",
    "umount2",
    "unshare",
    "userfaultfd",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_reason_and_no_two_are_alike() {
        for (index, rule) in RULES.iter().enumerate() {
            assert!(rule.reason.len() > 5, "{}", rule.call);
            assert!(rule.when.iter().all(|when| when.argument < 6));
            let twin = RULES[..index].iter().find(|other| format!("{other:?}") == format!("{rule:?}"));
            assert!(twin.is_none(), "{} twice", rule.call);
        }
    }

    #[test]
    fn what_is_never_legitimate_has_no_rule() {
        for name in NEVER_LEGITIMATE {
            assert!(RULES.iter().all(|rule| rule.call != *name), "{name}");
        }
    }
}
