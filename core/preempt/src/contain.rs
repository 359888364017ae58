//! Faults of calls: what they are called, and the installation of the handlers (`handlers`) that end the call which caused them.
//!
//! A handler runs on an alternate stack, so a call that has used up its own can be stopped. It ends a call by editing the interrupted
//! context: when the handler returns, the kernel restores the signal mask and all registers and the thread
//! continues in [`switch`](crate::run)'s way back to the worker. So there is no frame to unwind, and the mask is empty whatever the call has blocked.
//!
//! A fault that does not belong to a call (the worker's own bug) takes the default action: the process dies by that signal, and
//! the node replaces it.
//!
//! | signal | flag | why |
//! | --- | --- | --- |
//! | all | `SA_SIGINFO` | the context must be edited |
//! | all | `SA_ONSTACK` | the call's stack may be used up, or its pointer nonsense |
//! | all | the alarm and the poke in the mask | within a handler they would find neither a call nor the worker |
//! | all | no `SA_NODEFER` | the handler cannot fault; if it did, dying is right |
#![expect(unsafe_code, reason = "installs signal handlers")]

use std::arch::asm;
use std::io;
use std::sync::atomic::Ordering;

use libc::{c_int, c_ulong, c_void};

use crate::Stack;
use crate::frame::HAS_FSGSBASE;
use crate::handlers::{ANSWER, HANDLERS, Handler, LAST_ADDRESS, LAST_CALL, REPAIR, entry, on_fault};

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Fault {
    /// Used up its stack.
    StackOverflow = 1,
    /// Touched memory that is not its own (SIGSEGV).
    Segment = 2,
    /// Touched memory behind which there is nothing (SIGBUS).
    Bus = 3,
    /// Ran an instruction that does not exist (SIGILL), as `core::intrinsics::abort` does.
    Illegal = 4,
    /// Arithmetic trap (SIGFPE).
    Arithmetic = 5,
    /// Aborted (SIGABRT): a double panic, `std::process::abort`.
    Abort = 6,
    /// Asked for a system call that the sandbox forbids (SIGSYS).
    SystemCall = 7,
    /// Ran into a breakpoint or a single step (SIGTRAP), which no compiler makes.
    Trap = 8,
    /// Was refused memory that is its own, its stack or what `init` has made, on its first access: the worker's memory is limited, and used up.
    NoMemory = 9,
}

impl Fault {
    /// All kinds with the words that completions carry.
    const ALL: [(Self, &'static str); 9] = [
        (Self::StackOverflow, "stack overflow"),
        (Self::Segment, "access to memory that is not its own (SIGSEGV)"),
        (Self::Bus, "access to memory that is not there (SIGBUS)"),
        (Self::Illegal, "illegal instruction (SIGILL)"),
        (Self::Arithmetic, "arithmetic trap (SIGFPE)"),
        (Self::Abort, "abort (SIGABRT)"),
        (Self::SystemCall, "forbidden system call (SIGSYS)"),
        (Self::Trap, "breakpoint or single step (SIGTRAP)"),
        (Self::NoMemory, "no memory for a page of its own"),
    ];

    pub(crate) fn from_code(code: u32) -> Self {
        Self::ALL.iter().map(|(kind, _)| *kind).find(|kind| *kind as u32 == code).unwrap_or(Self::Segment)
    }

    /// In words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("fault", |(_, words)| words)
    }

    /// Whether the call may have written where it should not, or has run code that no compiler made, so that nothing in the process can be trusted any more.
    #[must_use]
    pub fn breaks_memory_safety(self) -> bool {
        matches!(self, Self::Segment | Self::Bus | Self::Trap)
    }
}

const SIGNALS: [c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS];

/// What came of a faulting access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repaired {
    /// It is to be tried again.
    Done,
    /// It would be legitimate, but there is no memory for it: the call is ended as [`Fault::NoMemory`].
    NoMemory,
    /// It is what it looks like.
    NotMine,
}

/// Asked about a SIGSEGV: an access may be legitimate after some repair (a page that is copied on its first write). Called in
/// the handler with the faulting address, `errno` kept.
pub type Repair = fn(address: usize) -> Repaired;

/// Address that the last fault gave.
#[must_use]
pub fn last_address() -> usize {
    LAST_ADDRESS.load(Ordering::Relaxed)
}

/// Asked first about a SIGSYS: a system call that the sandbox forbids and that can be answered without the kernel. Called in the handler with the call's number and
/// its arguments; gives what the call returns, an error as its negative number. `None` ends the call of the function that made it.
pub type Answer = fn(number: i32, arguments: [usize; 6]) -> Option<isize>;

/// Chooses who is asked about forbidden system calls.
pub fn answer_system_calls(answer: Answer) {
    ANSWER.store(answer as *mut c_void, Ordering::Relaxed);
}

/// Number of the last forbidden system call, and the `AUDIT_ARCH_*` of the way by which it was made.
#[must_use]
pub fn last_system_call() -> (i32, u32) {
    (LAST_CALL.0.load(Ordering::Relaxed), LAST_CALL.1.load(Ordering::Relaxed))
}

/// The handlers in force. The alternate stack stays for the life of the process, as the kernel has its address.
#[derive(Debug)]
pub struct Containment {
    _alternate: Stack,
}

/// Has the kernel look for no restartable sequence of this thread any more. The C library asks it to, at each preemption, in memory that machine code of a call's own could
/// write to; where there is nonsense the kernel kills the process. Nobody here uses them, and whoever asks for the number of the core still gets it. Where the C library has
/// not asked, or was refused, nothing happens.
fn forget_restartable_sequences() -> io::Result<()> {
    /// In the auxiliary vector: how much of the area the kernel uses, and how it is to be aligned.
    const AT_RSEQ_FEATURE_SIZE: c_ulong = 27;
    const AT_RSEQ_ALIGN: c_ulong = 28;
    // SAFETY: looks up a name.
    let offset = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()) }.cast::<isize>();
    // SAFETY: looks up a name.
    let size = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()) }.cast::<u32>();
    if offset.is_null() || size.is_null() {
        return Ok(());
    }
    // SAFETY: the C library's constant of that name is of this type.
    let offset = unsafe { *offset };
    // SAFETY: as above.
    let size = unsafe { *size };
    let thread: *mut c_void;
    // SAFETY: reads the word that a thread's control block begins with, its own address.
    unsafe { asm!("mov {}, fs:[0]", out(reg) thread, options(nostack, readonly, preserves_flags)) };
    let area = thread.wrapping_byte_offset(offset);
    // The second field is the core's number, below 0 while the area is not registered.
    let core = area.wrapping_byte_add(4).cast::<i32>();
    // SAFETY: the area is in the thread's control block, whether it is registered or not; the kernel writes to it only behind this thread's back.
    if unsafe { core.read_volatile() } < 0 {
        return Ok(());
    }
    // SAFETY: reads the auxiliary vector.
    let [feature, align] = [AT_RSEQ_FEATURE_SIZE, AT_RSEQ_ALIGN].map(|name| unsafe { libc::getauxval(name) });
    unregister(area, areas_of(feature, align, size.into()))
}

/// What the C library marks restartable sequences with.
const SIGNATURE: u32 = 0x5305_3053;

/// The sizes that the area may have been registered with. The C library registers the least there is or what the kernel uses, rounded up, by its version, and does not say which.
/// What it calls the size may be less than it has registered.
fn areas_of(feature: c_ulong, align: c_ulong, size: c_ulong) -> [c_ulong; 3] {
    /// The least size that can be registered.
    const BYTES: c_ulong = 32;
    [BYTES, feature.max(BYTES).next_multiple_of(align.max(BYTES)), size]
}

/// Takes the registration of an area back that has one of these sizes.
fn unregister(area: *mut c_void, sizes: [c_ulong; 3]) -> io::Result<()> {
    const UNREGISTER: c_int = 1;
    let mut refused = None;
    for bytes in sizes {
        // SAFETY: compares numbers with those that were registered, and does nothing where they differ.
        if unsafe { libc::syscall(libc::SYS_rseq, area, bytes, UNREGISTER, SIGNATURE) } == 0 {
            return Ok(());
        }
        // Another size than the one that was registered is EINVAL, from whichever comes first.
        refused = Some(io::Error::last_os_error());
    }
    refused.map_or(Ok(()), Err)
}

/// In the auxiliary vector: `wrfsbase` may be used.
const HWCAP2_FSGSBASE: c_ulong = 2;

/// Installs the handlers for the calling thread, which is the one that runs calls. Signals taken: SEGV, BUS, ILL, FPE, TRAP, ABRT, SYS.
///
/// # Errors
/// Where the kernel refuses the alternate stack or a handler, or does not let go of the thread's restartable sequences.
pub fn install(repair: Option<Repair>) -> io::Result<Containment> {
    forget_restartable_sequences()?;
    // SAFETY: reads the auxiliary vector.
    let has_fsgsbase = unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE != 0;
    HAS_FSGSBASE.store(has_fsgsbase, Ordering::Relaxed);
    REPAIR.store(repair.map_or(std::ptr::null_mut(), |f| f as *mut c_void), Ordering::Relaxed);
    let alternate = Stack::new(crate::stack::STACK_BYTES_MIN).map_err(io::Error::other)?;
    let usable = alternate.usable();
    let stack = libc::stack_t { ss_sp: alternate.low().as_ptr().cast(), ss_flags: 0, ss_size: usable.len() };
    // SAFETY: the memory is ours and stays mapped: it is leaked below where anything goes wrong afterwards.
    if unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let containment = Containment { _alternate: alternate };
    for signal in SIGNALS {
        if let Err(error) = set_handler(signal, on_fault) {
            std::mem::forget(containment);
            return Err(error);
        }
    }
    Ok(containment)
}

/// Installs a handler that runs on the alternate stack, with the alarm and the poke blocked meanwhile. The signal comes through from then on: a process
/// inherits what the thread that has started it had blocked.
pub(crate) fn set_handler(signal: c_int, handler: Handler) -> io::Result<()> {
    // SAFETY: all-zero is a valid `sigaction`: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    for deferred in [libc::SIGALRM, crate::poke::SIGNAL] {
        // SAFETY: the mask is initialised, and the signals exist.
        unsafe { libc::sigaddset(&raw mut action.sa_mask, deferred) };
    }
    let slot = usize::try_from(signal).ok().and_then(|signal| HANDLERS.get(signal));
    let slot = slot.ok_or(io::ErrorKind::InvalidInput)?;
    slot.store(handler as *mut c_void, Ordering::Relaxed);
    let entry: Handler = entry;
    action.sa_sigaction = entry as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the action is initialised and its handler has the signature that SA_SIGINFO asks for.
    if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero is a valid signal set, the empty one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is initialised, and the signal exists.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: the set is initialised; the handler is there.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restartable_sequences_are_forgotten_and_it_is_no_error_where_there_are_none() {
        forget_restartable_sequences().unwrap();
        // The kernel would refuse another area while one is registered.
        #[repr(align(64))]
        struct Area([u8; 64]);
        let mut area = Area([0; 64]);
        let at = area.0.as_mut_ptr();
        for flags in [0, 1] {
            // SAFETY: the area outlives its registration, which the second call takes back.
            let done = unsafe { libc::syscall(libc::SYS_rseq, at, 32, flags, 7) };
            let error = io::Error::last_os_error();
            assert!(done == 0 || error.raw_os_error() == Some(libc::ENOSYS), "{flags}: {error}");
        }
        forget_restartable_sequences().unwrap();
    }

    /// As newer C libraries register on kernels that use more of it.
    #[test]
    fn an_area_that_is_larger_than_the_least_is_found_by_its_size() {
        #[repr(align(64))]
        struct Area([u8; 128]);
        assert_eq!(areas_of(0, 0, 20), [32, 32, 20], "of a kernel that does not say");
        assert_eq!(areas_of(28, 32, 28), [32, 32, 28]);
        assert_eq!(areas_of(40, 64, 40), [32, 64, 40]);
        forget_restartable_sequences().unwrap();
        let area = Box::leak(Box::new(Area([0; 128])));
        let at = area.0.as_mut_ptr().cast::<c_void>();
        let register = || {
            // SAFETY: the area is never freed.
            let done = unsafe { libc::syscall(libc::SYS_rseq, at, 64, 0, SIGNATURE) };
            (done == 0).then_some(()).ok_or_else(io::Error::last_os_error)
        };
        if let Err(error) = register() {
            // Kernels before 6.3 know one size.
            let known = [libc::ENOSYS, libc::EINVAL].map(Some);
            assert!(known.contains(&error.raw_os_error()), "{error}");
            eprintln!("skipped: the kernel registers no such area: {error}");
            return;
        }
        let refused = unregister(at, areas_of(28, 32, 28)).map_err(|error| error.raw_os_error());
        assert_eq!(refused, Err(Some(libc::EINVAL)), "it has none of these sizes");
        unregister(at, areas_of(40, 64, 40)).unwrap();
        register().expect("it is free again");
        unregister(at, areas_of(20, 8, 64)).unwrap();
    }
}
