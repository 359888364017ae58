//! Signal handlers that end the call which caused them. Nothing in this file but async-signal-safe functions.
//!
//! A handler runs on an alternate stack, so a call that has used up its own can be stopped. It ends a call by editing the interrupted
//! context: when the handler returns, the kernel restores the signal mask and all registers and the thread
//! continues in [`switch`](crate::run)'s way back to the worker. So there is no frame to unwind, and the mask is empty whatever the call has blocked.
//!
//! A fault that does not belong to a call (the worker's own bug) falls through to the default action: the process dies by that signal, and
//! the node replaces it.
//!
//! | signal | flag | why |
//! | --- | --- | --- |
//! | all | `SA_SIGINFO` | the context must be edited |
//! | all | `SA_ONSTACK` | the call's stack may be used up, or its pointer nonsense |
//! | all | the alarm and the poke in the mask | within a handler they would find neither a call nor the worker |
//! | all | no `SA_NODEFER` | the handler cannot fault; if it did, dying is right |
#![expect(unsafe_code, reason = "signal handlers")]

use std::io;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t, ucontext_t};

use crate::Stack;
use crate::frame::{FAULTED, LIMIT, WORKER_SP, in_guard};
use crate::switch::back_from_anywhere_address;

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
}

impl Fault {
    /// All kinds with the words that completions carry.
    const ALL: [(Self, &'static str); 7] = [
        (Self::StackOverflow, "stack overflow"),
        (Self::Segment, "access to memory that is not its own (SIGSEGV)"),
        (Self::Bus, "access to memory that is not there (SIGBUS)"),
        (Self::Illegal, "illegal instruction (SIGILL)"),
        (Self::Arithmetic, "arithmetic trap (SIGFPE)"),
        (Self::Abort, "abort (SIGABRT)"),
        (Self::SystemCall, "forbidden system call (SIGSYS)"),
    ];

    pub(crate) fn from_code(code: u32) -> Self {
        Self::ALL.iter().map(|(kind, _)| *kind).find(|kind| *kind as u32 == code).unwrap_or(Self::Segment)
    }

    /// In words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("fault", |(_, words)| words)
    }

    /// Whether the call may have written where it should not, so that nothing in the process can be trusted any more.
    #[must_use]
    pub fn breaks_memory_safety(self) -> bool {
        matches!(self, Self::Segment | Self::Bus)
    }
}

const SIGNALS: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGSYS];

/// Asked first about a SIGSEGV: an access that is legitimate after some repair (a page that is copied on its first write). Called in
/// the handler with the faulting address; true to retry the access.
pub type Repair = extern "C" fn(address: usize) -> bool;

static REPAIR: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Address of the last fault, for the completion's text.
static LAST_ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// Address that the last fault gave.
#[must_use]
pub fn last_address() -> usize {
    LAST_ADDRESS.load(Ordering::Relaxed)
}

/// Asked first about a SIGSYS: a system call that the sandbox forbids and that can be answered without the kernel. Called in the handler with the call's number and
/// its arguments; gives what the call returns, an error as its negative number. `None` ends the call of the function that made it.
pub type Answer = fn(number: i32, arguments: [usize; 6]) -> Option<isize>;

static ANSWER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Number and architecture of the last forbidden system call.
static LAST_CALL: (AtomicI32, AtomicU32) = (AtomicI32::new(-1), AtomicU32::new(0));

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

/// Installs the handlers for the calling thread, which is the one that runs calls. Signals taken: SEGV, BUS, ILL, FPE, ABRT, SYS.
///
/// # Errors
/// Where the kernel refuses the alternate stack or a handler.
pub fn install(repair: Option<Repair>) -> io::Result<Containment> {
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

pub(crate) type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// Installs a handler that runs on the alternate stack, with the alarm and the poke blocked meanwhile. The signal comes through from then on: a process
/// inherits what the thread that has started it had blocked.
pub(crate) fn set_handler(signal: c_int, handler: Handler) -> io::Result<()> {
    // SAFETY: all-zero is a valid `sigaction`: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    for deferred in [libc::SIGALRM, crate::poke::SIGNAL] {
        // SAFETY: the mask is initialised, and the signals exist.
        unsafe { libc::sigaddset(&raw mut action.sa_mask, deferred) };
    }
    action.sa_sigaction = handler as *const () as usize;
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

extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid pointers to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: si_addr is meaningful for SEGV and BUS and harmless to read otherwise.
    let address = unsafe { info.si_addr() }.addr();
    if signal == libc::SIGSEGV && repair(address) {
        return;
    }
    // SAFETY: the kernel passes a valid context, which we alone look at.
    let context = unsafe { &mut *context.cast::<ucontext_t>() };
    if signal == libc::SIGSYS && answer(info, context) {
        return;
    }
    let worker_sp = WORKER_SP.load(Ordering::Relaxed);
    if worker_sp == 0 {
        return die_by(signal);
    }
    LAST_ADDRESS.store(address, Ordering::Relaxed);
    end_call(context, worker_sp, classify(signal, address));
}

/// Makes the interrupted thread continue on its way back to the worker.
pub(crate) fn end_call(context: &mut ucontext_t, worker_sp: usize, fault: Fault) {
    // What the C library has blocked in the middle of something, as in `abort`, does not stay blocked.
    // SAFETY: async-signal-safe; the context is the interrupted thread's, and its mask is set from it when the handler returns.
    unsafe { libc::sigemptyset(&raw mut context.uc_sigmask) };
    // From here on the call is on its way out, and no alarm suspends it.
    LIMIT.store(u64::MAX, Ordering::Relaxed);
    set_register(context, libc::REG_RIP, back_from_anywhere_address());
    set_register(context, libc::REG_RSP, worker_sp);
    set_register(context, libc::REG_RDI, worker_sp);
    set_register(context, libc::REG_RSI, usize::try_from(FAULTED | fault as u64).unwrap_or(0));
}

fn repair(address: usize) -> bool {
    let repair = REPAIR.load(Ordering::Relaxed);
    if repair.is_null() {
        return false;
    }
    // SAFETY: only `install` stores here, and it stores a `Repair`.
    let repair: Repair = unsafe { std::mem::transmute::<*mut c_void, Repair>(repair) };
    repair(address)
}

/// What the kernel says of a system call that a filter has trapped: `_sigsys` in `siginfo_t`, behind three numbers and padding.
#[repr(C)]
struct SigsysInfo {
    head: [c_int; 4],
    call_address: *mut c_void,
    number: c_int,
    architecture: u32,
}

/// Notes a forbidden system call, and gives its answer where there is one.
fn answer(info: &siginfo_t, context: &mut ucontext_t) -> bool {
    // SAFETY: for a SIGSYS the kernel fills these fields, and the structure is shorter than `siginfo_t`.
    let info = unsafe { &*std::ptr::from_ref(info).cast::<SigsysInfo>() };
    LAST_CALL.0.store(info.number, Ordering::Relaxed);
    LAST_CALL.1.store(info.architecture, Ordering::Relaxed);
    let answer = ANSWER.load(Ordering::Relaxed);
    if answer.is_null() {
        return false;
    }
    // SAFETY: only `answer_system_calls` stores here, and it stores an `Answer`.
    let answer: Answer = unsafe { std::mem::transmute::<*mut c_void, Answer>(answer) };
    let registers = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9];
    let Some(value) = answer(info.number, registers.map(|name| register(context, name))) else {
        return false;
    };
    set_register(context, libc::REG_RAX, value.cast_unsigned());
    true
}

fn classify(signal: c_int, address: usize) -> Fault {
    match signal {
        libc::SIGSEGV if in_guard(address) => Fault::StackOverflow,
        libc::SIGSEGV => Fault::Segment,
        libc::SIGBUS => Fault::Bus,
        libc::SIGILL => Fault::Illegal,
        libc::SIGFPE => Fault::Arithmetic,
        libc::SIGABRT => Fault::Abort,
        _ => Fault::SystemCall,
    }
}

/// Sets a register of the interrupted context.
pub(crate) fn set_register(context: &mut ucontext_t, register: c_int, value: usize) {
    if let Some(slot) = usize::try_from(register).ok().and_then(|i| context.uc_mcontext.gregs.get_mut(i)) {
        *slot = value.cast_signed() as i64;
    }
}

/// A register of the interrupted context.
pub(crate) fn register(context: &ucontext_t, register: c_int) -> usize {
    let value = usize::try_from(register).ok().and_then(|i| context.uc_mcontext.gregs.get(i));
    value.and_then(|value| usize::try_from(value.cast_unsigned()).ok()).unwrap_or(0)
}

/// The default action, now.
fn die_by(signal: c_int) {
    // SAFETY: resets the disposition; the instruction that faulted then faults again, or the raised signal is delivered on return.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: raise is async-signal-safe.
    unsafe { libc::raise(signal) };
}
