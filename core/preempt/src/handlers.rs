//! The handlers of faults. Nothing in this file but async-signal-safe functions; who installs them is in [`contain`](crate::contain).
//!
//! All handlers begin with `entry`: a call may have been interrupted with alignment checks on, which the kernel leaves on for handlers, or
//! with another thread pointer, which handlers need for `errno`. Both take machine code that no compiler makes.
//!
//! What a handler itself may touch and fault on is the closed part of the running call's stack: SIGSEGV is not in the others' masks, and its handler opens
//! it, on the same alternate stack, a frame further down.
#![expect(unsafe_code, reason = "signal handlers")]

use std::arch::naked_asm;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t, ucontext_t};

use crate::contain::{Answer, Fault, Repair, Repaired};
use crate::frame::{FAULTED, HAS_FSGSBASE, LIMIT, OPEN, STACK, WORKER_SP, in_guard};
use crate::stack::opening;
use crate::switch::back_from_anywhere_address;

/// What the kernel is given for each signal.
pub(crate) type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// A [`Handler`] for each of the first signals, null where there is none. `entry` jumps there.
pub(crate) static HANDLERS: [AtomicPtr<c_void>; 32] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 32];
/// A [`Repair`], or null.
pub(crate) static REPAIR: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// An [`Answer`], or null.
pub(crate) static ANSWER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Address of the last fault, for the completion's text.
pub(crate) static LAST_ADDRESS: AtomicUsize = AtomicUsize::new(0);
/// Number and architecture of the last forbidden system call.
pub(crate) static LAST_CALL: (AtomicI32, AtomicU32) = (AtomicI32::new(-1), AtomicU32::new(0));

/// Flags as a program starts with them; the kernel keeps interrupts enabled.
const FLAGS: usize = 0x202;
/// Selectors of 64-bit user code and its data, as the kernel has them.
const SELECTORS: (usize, usize) = (0x33, 0x2b);
/// Length of `syscall`, and of `int 0x80`.
const SYSTEM_CALL_BYTES: usize = 2;

/// What the kernel calls for every signal. While a call runs, its frame on the worker's stack has the thread pointer.
#[unsafe(naked)]
pub(crate) extern "C" fn entry(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    naked_asm!(
        "push 2",
        "popfq",
        "mov rax, [rip + {worker_sp}]",
        "test rax, rax",
        "jz 2f",
        "cmp byte ptr [rip + {has_fsgsbase}], 0",
        "je 2f",
        "mov rax, [rax + 8]",
        "wrfsbase rax",
        "2:",
        "lea rax, [rip + {handlers}]",
        "mov ecx, edi",
        "jmp [rax + rcx * 8]",
        worker_sp = sym WORKER_SP,
        has_fsgsbase = sym HAS_FSGSBASE,
        handlers = sym HANDLERS,
    )
}

pub(crate) extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid pointers to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: si_addr is meaningful for SEGV and BUS and harmless to read otherwise.
    let address = unsafe { info.si_addr() }.addr();
    // SAFETY: the kernel passes a valid context, which we alone look at.
    let context = unsafe { &mut *context.cast::<ucontext_t>() };
    let worker_sp = WORKER_SP.load(Ordering::Relaxed);
    let mut fault = classify(signal, address);
    if signal == libc::SIGSEGV {
        match repair(address, worker_sp != 0) {
            Repaired::Done => return,
            Repaired::NoMemory => fault = Fault::NoMemory,
            Repaired::NotMine => {}
        }
    }
    if signal == libc::SIGSYS && answer(info, context) {
        return;
    }
    if worker_sp == 0 {
        return die_by(signal, info.si_code, context);
    }
    LAST_ADDRESS.store(address, Ordering::Relaxed);
    end_call(context, worker_sp, fault);
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
    // A call may have left in the middle of a single step, or for 32-bit code.
    set_register(context, libc::REG_EFL, FLAGS);
    let others = register(context, libc::REG_CSGSFS) & 0x0000_ffff_ffff_0000;
    set_register(context, libc::REG_CSGSFS, others | SELECTORS.0 | SELECTORS.1 << 48);
}

/// Runs the work of a handler that makes system calls.
pub(crate) fn keep_errno(work: impl FnOnce()) {
    // SAFETY: errno is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: readable, as above.
    let kept = unsafe { *errno };
    work();
    // SAFETY: writable, as above.
    unsafe { *errno = kept };
}

/// Makes an access that has faulted possible, if it may be.
fn repair(address: usize, is_call: bool) -> Repaired {
    let mut repaired = Repaired::NotMine;
    keep_errno(|| {
        if is_call {
            repaired = open_stack(address);
        }
        let repair = REPAIR.load(Ordering::Relaxed);
        if repaired == Repaired::NotMine && !repair.is_null() {
            // SAFETY: only `install` stores here, and it stores a `Repair`.
            let repair: Repair = unsafe { std::mem::transmute::<*mut c_void, Repair>(repair) };
            repaired = repair(address);
        }
    });
    repaired
}

/// Opens the running call's stack as far as it is needed.
fn open_stack(address: usize) -> Repaired {
    let [low, top] = [1, 2].map(|i: usize| STACK[i].load(Ordering::Relaxed));
    let open_from = OPEN.load(Ordering::Relaxed);
    if !(low..open_from).contains(&address) {
        return Repaired::NotMine;
    }
    let from = opening(address, low, open_from, top);
    let start = std::ptr::with_exposed_provenance_mut::<c_void>(from);
    // SAFETY: the closed part of the call's stack, in which nothing lives; `mprotect` is one system call.
    if unsafe { libc::mprotect(start, open_from - from, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
        return Repaired::NoMemory;
    }
    OPEN.store(from, Ordering::Relaxed);
    Repaired::Done
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
        libc::SIGTRAP => Fault::Trap,
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

/// The worker's own fault: the process dies by the signal's default action.
///
/// A sealed worker may not choose that. But a signal that the processor or the filter raises while it is blocked ends the process by its name, so it is
/// enough to block it and let the instruction come again. An abort, and what another process has sent, does not come again: there the action is chosen, which
/// a sealed worker dies of by SIGSYS.
fn die_by(signal: c_int, code: c_int, context: &mut ucontext_t) {
    if signal == libc::SIGABRT || code <= 0 {
        // SAFETY: resets the disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: raise is async-signal-safe; the signal is delivered when the handler returns.
        unsafe { libc::raise(signal) };
        return;
    }
    // SAFETY: async-signal-safe; the context is the interrupted thread's.
    unsafe { libc::sigaddset(&raw mut context.uc_sigmask, signal) };
    match signal {
        // Reported behind the instruction; the number is in rax again.
        libc::SIGSYS => {
            let at = register(context, libc::REG_RIP) - SYSTEM_CALL_BYTES;
            set_register(context, libc::REG_RIP, at);
        }
        // Reported behind the instruction, whose length is not known.
        libc::SIGTRAP => {
            let trap: extern "C" fn() -> ! = trap;
            set_register(context, libc::REG_RIP, trap as *const () as usize);
        }
        _ => {}
    }
}

/// Raises a SIGTRAP.
#[unsafe(naked)]
extern "C" fn trap() -> ! {
    naked_asm!("int3", "ud2")
}
