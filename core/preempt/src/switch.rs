//! The switch onto a call's stack and off it.
//!
//! Both directions keep what the System V ABI asks a callee to keep: rbx, rbp, r12 to r15, rsp, the control
//! word of the x87 unit and the control bits of MXCSR; and what it takes for granted: the flags for direction, alignment checks and nested
//! tasks, the x87 stack, the thread pointer. A call that is ended anywhere therefore cannot leave the worker with another rounding mode, nor machine
//! code of an attacker's own with one in which it faults.
#![expect(unsafe_code, reason = "switches stacks")]

use core::arch::naked_asm;
use core::ffi::c_void;
use core::sync::atomic::Ordering;

use crate::contain::Fault;
use crate::frame::{
    CALL_SP, FAULTED, HAS_FSGSBASE, LEFT, LIMIT, OPEN, RETURNED, STACK, SUSPENDED, WORKER_SP, XSAVE_BYTES,
};
use crate::{Ending, Exit, Stack};

/// What a call's stack runs.
pub type Entry = unsafe extern "C" fn(*mut c_void) -> u32;

/// A suspended call: where its registers lie on its stack.
#[derive(Debug, PartialEq, Eq)]
pub struct Suspended(usize);

/// Runs `entry(argument)` on `stack`, until it returns, is ended, or is suspended.
///
/// # Safety
/// - `entry` may be called with `argument`, and lets no panic out.
/// - Ending it anywhere, without unwinding, is sound: what it and its callees hold in memory that outlives the call must not be used afterwards as
///   if they had finished. (A worker resets the instance and the arena.)
/// - One thread of the process uses this function, and it is not called from below itself.
/// - After [`Exit::Suspended`] the stack is left alone until the call was [resumed](resume) and is over, or is given up for good.
///
/// # Cost
/// About 5 ns over the call itself.
#[inline]
pub unsafe fn run(stack: &mut Stack, entry: Entry, argument: *mut c_void) -> Exit {
    announce(stack);
    // SAFETY: the top of a `Stack` is aligned to 4096 and has room below it; the rest is the caller's promise.
    let code = unsafe { enter(WORKER_SP.as_ptr(), stack.top().as_ptr(), entry, argument) };
    stack.opened_to(OPEN.load(Ordering::Relaxed));
    understand(code)
}

/// Continues a suspended call, until it returns, is ended, or is suspended again. `stack` is the one that it was started on.
///
/// # Safety
/// As for [`run`]; and what the call could refer to when it was suspended (instance, arena, request, response) is as it was.
#[inline]
pub unsafe fn resume(stack: &mut Stack, suspended: Suspended) -> Exit {
    announce(stack);
    // SAFETY: the pointer is where `suspend` has saved the call's registers, on this stack, by the caller's promise.
    let code = unsafe { reenter(WORKER_SP.as_ptr(), suspended.0) };
    stack.opened_to(OPEN.load(Ordering::Relaxed));
    understand(code)
}

/// Tells the signal handlers about the stack.
#[inline]
fn announce(stack: &Stack) {
    let (guard, usable) = (stack.guard(), stack.usable());
    STACK[0].store(guard.start, Ordering::Relaxed);
    STACK[1].store(usable.start, Ordering::Relaxed);
    STACK[2].store(usable.end, Ordering::Relaxed);
    OPEN.store(stack.open_from(), Ordering::Relaxed);
}

#[inline]
fn understand(code: u64) -> Exit {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the value")]
    let value = code as u32;
    match code & !0xffff_ffff {
        LEFT => Exit::Ended(Ending::HostCall(value)),
        FAULTED => Exit::Ended(Ending::Fault(Fault::from_code(value))),
        SUSPENDED => Exit::Suspended(Suspended(CALL_SP.load(Ordering::Relaxed))),
        _ => Exit::Returned(value),
    }
}

/// Ends the running call with `code`, from anywhere on its stack. Nothing on the stack is dropped.
///
/// # Safety
/// Called from below [`run`], on the call's stack.
pub unsafe fn leave(code: u32) -> ! {
    // SAFETY: `run` has stored the worker's stack pointer, and its frame is alive below us.
    unsafe { out(LEFT | u64::from(code)) }
}

/// Address of the code that brings a thread back from a call that was interrupted anywhere, given the worker's stack pointer in rdi and a value in rsi.
pub(crate) fn back_from_anywhere_address() -> usize {
    let back: unsafe extern "C" fn(usize, u64) -> ! = back_from_anywhere;
    back as *const () as usize
}

/// Address of [`suspend`].
pub(crate) fn suspend_address() -> usize {
    let suspend: unsafe extern "C" fn() = suspend;
    suspend as *const () as usize
}

/// Flags that compiled code never sets and the processor does not forget.
const ALIGNMENT_CHECK: u32 = 1 << 18;
const NESTED_TASK: u32 = 1 << 14;

/// Bytes that the ABI lets a function use below its stack pointer.
pub(crate) const RED_ZONE: usize = 128;

/// Bytes that [`suspend`] takes of the call's stack, beside the extended state: red zone, return address, flags, 15 registers, alignment.
pub(crate) const SUSPEND_BYTES: usize = RED_ZONE + 8 + 8 + 15 * 8 + 64 + 8;

const _: () = assert!(RETURNED == 0, "`enter` returns the entry's value as it is");
const _: () = assert!(RED_ZONE == 128, "`suspend` ends in `ret 128`");

/// rdi: where to keep the worker's stack pointer; rsi: the call's stack top; rdx: entry; rcx: argument.
#[unsafe(naked)]
unsafe extern "C" fn enter(keep: *mut usize, top: *mut u8, entry: Entry, argument: *mut c_void) -> u64 {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        // The thread pointer, which the thread's control block begins with.
        "push qword ptr fs:[0]",
        "sub rsp, 8",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "mov rdi, rcx",
        "call rdx",
        "mov edi, eax",
        "jmp {out}",
        out = sym out,
    )
}

/// Leaves the call for good or for now; rdi: what `enter` or `reenter` returns.
///
/// The limit goes first: from then on no alarm suspends what is on its way out (timing point 4 in `docs/preemption.md`). Only then is the worker's stack pointer
/// read, which is another one after each suspension.
#[unsafe(naked)]
unsafe extern "C" fn out(value: u64) -> ! {
    naked_asm!(
        "mov qword ptr [rip + {limit}], -1",
        "mov rsi, rdi",
        "mov rdi, [rip + {worker_sp}]",
        "jmp {back}",
        back = sym back,
        limit = sym LIMIT,
        worker_sp = sym WORKER_SP,
    )
}

/// rdi: where to keep the worker's stack pointer; rsi: where `suspend` has saved the call's registers.
#[unsafe(naked)]
unsafe extern "C" fn reenter(keep: *mut usize, call_sp: usize) -> u64 {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        // The thread pointer, which the thread's control block begins with.
        "push qword ptr fs:[0]",
        "sub rsp, 8",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        // Pairs with `suspend`: the same steps backwards.
        "mov eax, -1",
        "mov edx, -1",
        "xrstor64 [rsp]",
        "add rsp, [rip + {xsave_bytes}]",
        "pop rsp",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbp",
        "pop rbx",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "popfq",
        "ret 128",
        xsave_bytes = sym XSAVE_BYTES,
    )
}

/// Where a handler sends a call that is to be suspended, with all registers as they were but rsp, which is lower by the red zone and
/// one word, the word holding the address to continue at. Saves every register, the extended state included, on the call's stack, and goes
/// back to the worker.
///
/// Saving in user mode instead of keeping the kernel's signal frame means that the handler returns as any other does: no
/// signal stays blocked, and resuming takes no system call.
#[unsafe(naked)]
unsafe extern "C" fn suspend() {
    naked_asm!(
        // Before anything else: see `out`.
        "mov qword ptr [rip + {limit}], -1",
        "pushfq",
        "push rax",
        "push rcx",
        "push rdx",
        "push rbx",
        "push rbp",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rbx, rsp",
        "mov rcx, [rip + {xsave_bytes}]",
        // Room for the extended state, aligned to 64, with the old stack pointer above it.
        "sub rsp, 8",
        "and rsp, -64",
        "sub rsp, rcx",
        "mov [rsp + rcx], rbx",
        // The header of the area must be zero where XSAVE does not write it.
        "xor eax, eax",
        "mov [rsp + 512], rax",
        "mov [rsp + 520], rax",
        "mov [rsp + 528], rax",
        "mov [rsp + 536], rax",
        "mov [rsp + 544], rax",
        "mov [rsp + 552], rax",
        "mov [rsp + 560], rax",
        "mov [rsp + 568], rax",
        "mov eax, -1",
        "mov edx, -1",
        "xsave64 [rsp]",
        // The call may be in the middle of a computation on the x87 stack, which a function may expect to be empty.
        "fninit",
        "mov [rip + {call_sp}], rsp",
        "movabs rdi, {suspended}",
        "jmp {out}",
        out = sym out,
        limit = sym LIMIT,
        call_sp = sym CALL_SP,
        xsave_bytes = sym XSAVE_BYTES,
        suspended = const SUSPENDED,
    )
}

/// As [`back`], for a call that did not leave at a call or return, where the ABI has no x87 exception pending.
#[unsafe(naked)]
unsafe extern "C" fn back_from_anywhere(worker_sp: usize, value: u64) -> ! {
    naked_asm!("fninit", "jmp {back}", back = sym back)
}

/// rdi: the worker's stack pointer as kept by `enter` or `reenter`; rsi: what that returns.
///
/// A call that comes with another thread pointer has run machine code of its own: it has faulted, whatever it says. The x87 unit's instructions raise
/// what a call has left pending, which ends it by the way of faults; so does a thread pointer that leads nowhere, which the handlers put right. The worker's stack pointer is cleared
/// once nothing can fault any more.
#[unsafe(naked)]
unsafe extern "C" fn back(worker_sp: usize, value: u64) -> ! {
    naked_asm!(
        "mov rsp, rdi",
        "mov rax, rsi",
        "cld",
        "emms",
        "ldmxcsr [rsp]",
        "fldcw [rsp + 4]",
        "pushfq",
        "pop rdx",
        "test edx, {odd_flags}",
        "jnz 3f",
        "2:",
        "mov rdx, fs:[0]",
        "cmp rdx, [rsp + 8]",
        "jne 4f",
        "5:",
        "mov qword ptr [rip + {worker_sp}], 0",
        "add rsp, 16",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        "3:",
        "push 2",
        "popfq",
        "jmp 2b",
        "4:",
        "movabs rax, {faulted}",
        "cmp byte ptr [rip + {has_fsgsbase}], 0",
        "je 5b",
        "mov rdx, [rsp + 8]",
        "wrfsbase rdx",
        "jmp 5b",
        odd_flags = const ALIGNMENT_CHECK | NESTED_TASK,
        faulted = const FAULTED | Fault::Segment as u64,
        has_fsgsbase = sym HAS_FSGSBASE,
        worker_sp = sym WORKER_SP,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::tests::ONE;

    fn check(entry: Entry, argument: usize, expected: Exit) {
        let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
        let mut stack = Stack::new(crate::stack::STACK_BYTES_MIN).unwrap();
        for _ in 0..3 {
            // SAFETY: the entries below hold nothing that outlives the call.
            assert_eq!(unsafe { run(&mut stack, entry, argument as *mut c_void) }, expected);
        }
    }

    unsafe extern "C" fn double(argument: *mut c_void) -> u32 {
        let local = std::hint::black_box([argument.addr(); 16]);
        u32::try_from(local[3] * 2).unwrap()
    }

    unsafe extern "C" fn leave_from_below(argument: *mut c_void) -> u32 {
        #[inline(never)]
        fn below(n: usize) -> u32 {
            if n == 0 {
                // SAFETY: on the call's stack.
                unsafe { leave(7) }
            }
            std::hint::black_box(below(n - 1)) + 1
        }
        below(argument.addr())
    }

    unsafe extern "C" fn change_rounding(_: *mut c_void) -> u32 {
        let mxcsr: u32 = 0x1f80 | 3 << 13;
        // SAFETY: sets the rounding mode to truncation, which `back` undoes.
        unsafe { core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const mxcsr, options(nostack)) };
        // SAFETY: on the call's stack.
        unsafe { leave(1) }
    }

    #[test]
    fn a_return_comes_back() {
        check(double, 21, Exit::Returned(42));
    }

    #[test]
    fn leaving_from_below_drops_the_stack() {
        check(leave_from_below, 50, Exit::Ended(Ending::HostCall(7)));
    }

    #[test]
    fn the_worker_keeps_its_rounding_mode() {
        check(change_rounding, 0, Exit::Ended(Ending::HostCall(1)));
        let (a, b) = std::hint::black_box((0.1f64, 0.2f64));
        assert_eq!((a + b).to_bits(), 0.300_000_000_000_000_04_f64.to_bits());
    }
}
