//! Calls that run machine code which no compiler makes, and calls that use their stack: how they end, and what they leave behind.
#![expect(unsafe_code, reason = "runs machine code that no compiler makes")]
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::arch::{asm, naked_asm};
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use microfaas_preempt::contain::{self, Fault};
use microfaas_preempt::{Ending, Entry, Exit, STACK_BYTES_MIN, Stack, run};

/// The static state allows one thread at a time to run calls.
static ONE: Mutex<()> = Mutex::new(());

/// On a thread of its own, with handlers.
fn on_worker_thread(test: impl FnOnce() + Send + 'static) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = std::thread::spawn(|| {
        std::mem::forget(contain::install(None).unwrap());
        test();
    });
    thread.join().unwrap();
}

fn call(stack: &mut Stack, entry: Entry, argument: usize) -> Exit {
    // SAFETY: the entries hold nothing that outlives them.
    unsafe { run(stack, entry, std::ptr::with_exposed_provenance_mut(argument)) }
}

fn flags() -> u64 {
    let flags: u64;
    // SAFETY: reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    flags
}

/// Entries of the x87 stack in use, two bits each; 0xffff is none.
fn x87_tags() -> u16 {
    let mut environment = [0u16; 14];
    // SAFETY: stores 28 bytes, and loads them again, as `fnstenv` masks exceptions.
    unsafe { asm!("fnstenv [{0}]", "fldenv [{0}]", in(reg) environment.as_mut_ptr()) };
    environment[4]
}

/// Runs each entry several times with another that is honest in between, on the worker's thread as it was before.
fn check(entry: Entry, expected: impl Fn(&Exit) -> bool + Send + 'static) {
    on_worker_thread(move || {
        let mut stack = Stack::closed(STACK_BYTES_MIN).unwrap();
        for _ in 0..3 {
            let exit = call(&mut stack, entry, 0);
            assert!(expected(&exit), "{exit:?}");
            assert_eq!(
                flags() & (1 << 8 | 1 << 10 | 1 << 14 | 1 << 18),
                0,
                "trap, direction, nested, alignment"
            );
            assert_eq!(x87_tags(), 0xffff);
            // Through the thread pointer.
            assert_eq!(std::thread::current().name(), None);
            assert_eq!(call(&mut stack, honest, 21), Exit::Returned(42));
        }
    });
}

fn check_fault(entry: Entry, fault: Fault) {
    check(entry, move |exit| *exit == Exit::Ended(Ending::Fault(fault)));
}

unsafe extern "C" fn honest(argument: *mut c_void) -> u32 {
    let numbers = std::hint::black_box([argument.addr(); 16]);
    u32::try_from(numbers[7] * 2).unwrap()
}

macro_rules! machine_code {
    ($($name:ident: $($line:literal),+;)+) => {$(
        #[unsafe(naked)]
        unsafe extern "C" fn $name(_: *mut c_void) -> u32 {
            naked_asm!($($line),+)
        }
    )+};
}

machine_code! {
    breakpoint: "int3", "ret";
    single_step: "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "ret";
    undefined: "ud2";
    divide: "xor edx, edx", "xor ecx, ecx", "div ecx", "ret";
    compatibility: "push 0x23", "lea rax, [rip]", "push rax", "retfq";
    alignment_and_return: "pushfq", "or qword ptr [rsp], 0x44000", "popfq", "mov eax, 7", "ret";
    alignment_and_fault: "pushfq", "or qword ptr [rsp], 0x40000", "popfq", "mov eax, [rsp + 1]", "ret";
    alignment_and_wild: "pushfq", "or qword ptr [rsp], 0x40000", "popfq", "xor eax, eax", "mov eax, [rax]", "ret";
    direction_and_return: "std", "mov eax, 7", "ret";
    x87_left_full: "fninit", "fld1", "fld1", "fld1", "mov eax, 7", "ret";
    x87_left_pending: "fninit", "push 0", "fldcw [rsp]", "pop rax", "fld1", "fldz", "fdivp", "mov eax, 7", "ret";
    no_thread: "xor eax, eax", "wrfsbase rax", "mov eax, 7", "ret";
    other_thread: "lea rax, [rsp - 64]", "mov qword ptr [rax], 5", "wrfsbase rax", "mov eax, 7", "ret";
    no_thread_and_fault: "xor eax, eax", "wrfsbase rax", "ud2";
}

#[test]
fn breakpoints_and_single_steps_are_faults() {
    check_fault(breakpoint, Fault::Trap);
    check_fault(single_step, Fault::Trap);
    assert!(Fault::Trap.breaks_memory_safety());
}

#[test]
fn traps_of_the_processor_have_their_names() {
    check_fault(undefined, Fault::Illegal);
    check_fault(divide, Fault::Arithmetic);
}

#[test]
fn a_call_that_has_gone_to_32_bit_code_comes_back() {
    check_fault(compatibility, Fault::Segment);
}

#[test]
fn flags_that_a_call_leaves_set_are_the_worker_s_no_more() {
    check(alignment_and_return, |exit| *exit == Exit::Returned(7));
    check(direction_and_return, |exit| *exit == Exit::Returned(7));
    check_fault(alignment_and_fault, Fault::Bus);
    check_fault(alignment_and_wild, Fault::Segment);
}

#[test]
fn the_x87_unit_is_left_empty_and_nothing_is_pending() {
    check(x87_left_full, |exit| *exit == Exit::Returned(7));
    check_fault(x87_left_pending, Fault::Arithmetic);
}

#[test]
fn a_call_that_has_changed_the_thread_pointer_has_faulted() {
    // SAFETY: reads the auxiliary vector.
    if unsafe { libc::getauxval(libc::AT_HWCAP2) } & 2 == 0 {
        eprintln!("skipped: this processor has no instruction for it");
        return;
    }
    check_fault(no_thread, Fault::Segment);
    check_fault(other_thread, Fault::Segment);
    check_fault(no_thread_and_fault, Fault::Illegal);
}

/// In the words of the kernel: where it does not look, unregistering once more is an error.
#[test]
fn the_kernel_looks_for_no_restartable_sequence() {
    on_worker_thread(|| {
        // SAFETY: takes nothing.
        let core = unsafe { libc::sched_getcpu() };
        assert!(core >= 0, "asking for the core works without");
        let area = Box::leak(Box::new([0u64; 8]));
        let at = area.as_mut_ptr().map_addr(|at| at.next_multiple_of(32));
        // SAFETY: registers memory that is never freed; the thread is at its end.
        let registered = unsafe { libc::syscall(libc::SYS_rseq, at, 32, 0, 7) };
        assert_eq!(registered, 0, "none is registered: {}", std::io::Error::last_os_error());
    });
}

/// Writes to its stack down to `depth` bytes, page by page as compiled code does.
unsafe extern "C" fn write_deep(depth: *mut c_void) -> u32 {
    #[inline(never)]
    fn below(depth: usize) -> usize {
        let frame = std::hint::black_box([0x5a5a_5a5a_5a5a_5a5au64; 24]);
        if depth < 400 { frame.len() } else { below(depth - 256) + usize::from(frame[1] == 1) }
    }
    u32::try_from(below(depth.addr())).unwrap()
}

/// How many bytes of the stack's topmost part a call finds that are not zero, beside its own frame.
unsafe extern "C" fn count_remains(depth: *mut c_void) -> u32 {
    let frame = [0u8; 0];
    let here = frame.as_ptr().addr() & !63;
    let from = here - depth.addr();
    // From the top down, as a stack grows.
    let words = (from..here - 512).rev().step_by(8).map(|at| at & !7);
    let is_left = |at: &usize| {
        let word = std::ptr::with_exposed_provenance::<u64>(*at);
        // SAFETY: on the call's stack, below what it uses itself.
        unsafe { word.read_volatile() != 0 }
    };
    u32::try_from(words.filter(is_left).count()).unwrap()
}

unsafe extern "C" fn write_deep_and_die(depth: *mut c_void) -> u32 {
    // SAFETY: as its own promise.
    unsafe { write_deep(depth) };
    // SAFETY: ends the call.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Resident bytes of this process's own.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn nothing_is_left_of_a_call_on_its_stack() {
    on_worker_thread(|| {
        let mut stack = Stack::closed(8 << 20).unwrap();
        let depths = [256, 1024, 3 << 10, 5 << 10, 20 << 10, 60 << 10, 70 << 10, 300 << 10, 4 << 20];
        for round in 0..3 {
            for depth in depths {
                for (entry, expected) in [
                    (write_deep as Entry, Exit::Returned(24)),
                    (write_deep_and_die, Exit::Ended(Ending::Fault(Fault::Illegal))),
                ] {
                    assert_eq!(call(&mut stack, entry, depth), expected, "{depth}");
                    if round == 0 && depth > 1024 {
                        assert_ne!(
                            call(&mut stack, count_remains, depth),
                            Exit::Returned(0),
                            "{depth}: it sees nothing"
                        );
                    }
                    // SAFETY: the call is over.
                    unsafe { stack.clear() };
                    assert_eq!(call(&mut stack, count_remains, depth), Exit::Returned(0), "{depth}");
                    // SAFETY: as above.
                    unsafe { stack.clear() };
                }
            }
        }
    });
}

#[test]
fn a_deep_call_is_not_paid_for_by_those_after_it() {
    on_worker_thread(|| {
        let mut stack = Stack::closed(64 << 20).unwrap();
        let before = resident();
        assert_eq!(call(&mut stack, write_deep, 60 << 20), Exit::Returned(24));
        assert!(resident() > before + (40 << 20));
        // SAFETY: the call is over.
        unsafe { stack.clear() };
        assert!(resident() < before + (5 << 20), "given back");
    });
}

#[test]
fn a_stack_that_is_used_up_is_told_from_a_wild_access() {
    unsafe extern "C" fn forever(_: *mut c_void) -> u32 {
        #[inline(never)]
        fn deeper(n: u64) -> u64 {
            let frame = std::hint::black_box([n; 64]);
            if n == u64::MAX { 0 } else { deeper(n + 1) + frame[3] }
        }
        u32::try_from(deeper(0)).unwrap_or(0)
    }
    unsafe extern "C" fn far_below(sp: *mut c_void) -> u32 {
        let here = std::hint::black_box(&sp) as *const _ as usize;
        let far = std::ptr::with_exposed_provenance::<u32>(here - (65 << 20));
        // SAFETY: none; the access is to fault.
        unsafe { far.read_volatile() }
    }
    on_worker_thread(|| {
        for bytes in [STACK_BYTES_MIN, 8 << 20] {
            let mut stack = Stack::closed(bytes).unwrap();
            for _ in 0..3 {
                let overflow = Exit::Ended(Ending::Fault(Fault::StackOverflow));
                assert_eq!(call(&mut stack, forever, 0), overflow);
                // SAFETY: the call is over.
                unsafe { stack.clear() };
                assert_eq!(call(&mut stack, honest, 21), Exit::Returned(42));
            }
        }
        let mut stack = Stack::closed(STACK_BYTES_MIN).unwrap();
        assert_eq!(call(&mut stack, far_below, 0), Exit::Ended(Ending::Fault(Fault::Segment)));
    });
}
