//! The switch onto a call's stack and off it.
//!
//! Both directions keep what the System V ABI asks a callee to keep: rbx, rbp, r12 to r15, rsp, the control
//! word of the x87 unit and the control bits of MXCSR. A call that is ended anywhere therefore cannot
//! leave the worker with another rounding mode.
#![expect(unsafe_code, reason = "switches stacks")]

use core::arch::naked_asm;
use core::ffi::c_void;
use core::sync::atomic::Ordering;

use crate::contain::Fault;
use crate::frame::{FAULTED, LEFT, RETURNED, STACK, WORKER_SP};
use crate::{Ending, Exit, Stack};

/// What a call's stack runs.
pub type Entry = unsafe extern "C" fn(*mut c_void) -> u32;

/// Runs `entry(argument)` on `stack`, until it returns or is ended.
///
/// # Safety
/// - `entry` may be called with `argument`, and lets no panic out.
/// - Ending it anywhere, without unwinding, is sound: what it and its callees hold in memory that outlives the call must not be used afterwards as
///   if they had finished. (A worker resets the instance and the arena.)
/// - One thread of the process uses this function, and it is not called from below itself.
///
/// # Cost
/// About 5 ns over the call itself.
#[inline]
pub unsafe fn run(stack: &mut Stack, entry: Entry, argument: *mut c_void) -> Exit {
    let (guard, usable) = (stack.guard(), stack.usable());
    STACK[0].store(guard.start, Ordering::Relaxed);
    STACK[1].store(usable.start, Ordering::Relaxed);
    STACK[2].store(usable.end, Ordering::Relaxed);
    // SAFETY: the top of a `Stack` is aligned to 4096 and has room below it; the rest is the caller's promise.
    let code = unsafe { enter(WORKER_SP.as_ptr(), stack.top().as_ptr(), entry, argument) };
    WORKER_SP.store(0, Ordering::Relaxed);
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the value")]
    let value = code as u32;
    match code & !0xffff_ffff {
        LEFT => Exit::Ended(Ending::HostCall(value)),
        FAULTED => Exit::Ended(Ending::Fault(Fault::from_code(value))),
        _ => Exit::Returned(value),
    }
}

/// Ends the running call with `code`, from anywhere on its stack. Nothing on the stack is dropped.
///
/// # Safety
/// Called from below [`run`], on the call's stack.
pub unsafe fn leave(code: u32) -> ! {
    // SAFETY: `run` has stored the worker's stack pointer, and its frame is alive below us.
    unsafe { back(WORKER_SP.load(Ordering::Relaxed), LEFT | u64::from(code)) }
}

/// Address of the code that brings a thread back to the worker, given the worker's stack pointer in rdi and a value in rsi.
pub(crate) fn back_address() -> usize {
    let back: unsafe extern "C" fn(usize, u64) -> ! = back;
    back as *const () as usize
}

const _: () = assert!(RETURNED == 0, "`enter` returns the entry's value as it is");

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
        "sub rsp, 8",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "mov [rdi], rsp",
        // The worker's stack pointer survives the entry in a register that it must preserve.
        "mov rbx, rsp",
        "mov rsp, rsi",
        "mov rdi, rcx",
        "call rdx",
        "mov eax, eax",
        "mov rdi, rbx",
        "mov rsi, rax",
        "jmp {back}",
        back = sym back,
    )
}

/// rdi: the worker's stack pointer as kept by `enter`; rsi: what `enter` returns.
#[unsafe(naked)]
unsafe extern "C" fn back(worker_sp: usize, value: u64) -> ! {
    naked_asm!(
        "mov rsp, rdi",
        "mov rax, rsi",
        "cld",
        "ldmxcsr [rsp]",
        "fldcw [rsp + 4]",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// The static state allows one call at a time in the process.
    static ONE: Mutex<()> = Mutex::new(());

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
