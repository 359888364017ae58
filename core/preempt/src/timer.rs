//! The alarm that suspends a call at its limit; its handler is in `alarms`.
//!
//! On a virtual machine a timer is dear: arming one that becomes the nearest costs 1.4 to 8 us, its expiry 13 us. So it is not armed for each
//! call. A call's limit is a number in memory; the timer, once armed, keeps running across calls, and its handler looks at the limit of
//! the call that runs then: not yet reached, it arms the timer for the rest; none, it leaves it off; reached, it suspends the call. A
//! call start costs one store and one compare.
//!
//! The limit is also the switch between handler and worker: it is set before a call is entered and [`u64::MAX`] from its way out on, so an alarm that comes at any other
//! time changes nothing.
#![expect(unsafe_code, reason = "a kernel timer")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use libc::c_int;
use microfaas_sys::clock::{CycleClock, cycles, thread_cpu_ns};

use crate::alarms::{ALARMS, DUE, NS_PER_4G_CYCLES, STRAY, TIMER, arm, on_alarm, set};
use crate::contain::set_handler;
use crate::frame::{LIMIT, XSAVE_BYTES};

/// Never armed for less: below the handler's own cost an alarm would meet its successor.
pub const ARM_NS_MIN: u64 = 20_000;

/// Time between the alarms of [`interrupting`].
const INTERRUPT_NS: u64 = 200_000;

/// The last reading of cycle counter and CPU time.
static SYNC: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// The last reading before the slice in which an alarm has taken another.
static SYNC_BEFORE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// The limit of that slice.
static SYNC_LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Installs the alarm for the calling thread, which is the one that runs calls. After [`contain::install`](crate::contain::install), whose alternate stack it
/// uses. Takes SIGALRM and one POSIX timer of `CLOCK_MONOTONIC`.
///
/// # Errors
/// Where the kernel refuses the handler or the timer.
pub fn install(clock: &CycleClock) -> io::Result<()> {
    XSAVE_BYTES.store(extended_state_bytes().next_multiple_of(64), Ordering::Relaxed);
    NS_PER_4G_CYCLES.store(clock.to_ns(1 << 32), Ordering::Relaxed);
    set_handler(libc::SIGALRM, on_alarm)?;
    // SAFETY: all-zero is a valid `sigevent`.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = libc::SIGALRM;
    // SAFETY: gettid has no preconditions.
    event.sigev_notify_thread_id = unsafe { libc::gettid() };
    let mut timer: c_int = -1;
    // SAFETY: both pointers are to live locals; the raw call writes the kernel's number, an int.
    let made = unsafe {
        libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer)
    };
    if made != 0 {
        return Err(io::Error::last_os_error());
    }
    TIMER.store(timer, Ordering::Relaxed);
    DUE.store(u64::MAX, Ordering::Relaxed);
    Ok(())
}

/// Bytes that XSAVE writes for the components that the kernel has switched on.
fn extended_state_bytes() -> usize {
    std::arch::x86_64::__cpuid_count(0xd, 0).ebx as usize
}

/// Sets the limit of the call that is entered next: it is suspended once the cycle counter passes `limit`.
///
/// # Cost
/// One store and one compare, unless the timer is off or due later than the limit: then a system call.
#[inline]
pub fn limit(limit: u64) {
    STRAY.store(0, Ordering::Relaxed);
    LIMIT.store(limit, Ordering::Relaxed);
    // An alarm between the store and this look has seen the limit, and armed the timer itself. For the handler the processor keeps the
    // order of the program; this keeps the compiler to it, which may turn a relaxed store and a relaxed load of two words around.
    compiler_fence(Ordering::SeqCst);
    if DUE.load(Ordering::Relaxed) > limit {
        arm(limit, cycles());
    }
}

/// Both clocks of the worker's thread at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The cycle counter.
    pub cycles: u64,
    /// CPU time of the thread, nanoseconds.
    pub cpu_ns: u64,
}

/// Reads both clocks. The alarm does so too, so that the last reading is seldom older than a slice while calls run.
///
/// # Cost
/// A system call.
///
/// # Async-signal safety
/// Yes.
pub fn sync() -> Reading {
    let reading = Reading { cycles: cycles(), cpu_ns: thread_cpu_ns() };
    reading.keep(&SYNC);
    reading
}

/// After a sleep, with [`sync`] before it: the sleep is not to count as time that the call which comes next was without the core.
///
/// # Cost
/// No system call, since somebody waits for the worker now: what the kernel has used for the sleep itself, some microseconds, counts as used after it.
pub fn slept() {
    SYNC[0].store(cycles(), Ordering::Relaxed);
}

/// The last reading before a slice that began then, if there is one; the slice is over, or is the latest. To be called while no limit is set, when no alarm takes another
/// meanwhile.
#[must_use]
pub fn sync_before(began: u64) -> Option<Reading> {
    [&SYNC, &SYNC_BEFORE].map(Reading::kept).into_iter().find(|reading| reading.cycles <= began)
}

/// As [`sync`], in a slice with this limit.
///
/// # Async-signal safety
/// Yes.
pub(crate) fn sync_within(limit: u64) {
    if SYNC_LIMIT.swap(limit, Ordering::Relaxed) != limit {
        Reading::kept(&SYNC).keep(&SYNC_BEFORE);
    }
    sync();
}

impl Reading {
    fn keep(self, place: &[AtomicU64; 2]) {
        place[0].store(self.cycles, Ordering::Relaxed);
        place[1].store(self.cpu_ns, Ordering::Relaxed);
    }

    fn kept(place: &[AtomicU64; 2]) -> Self {
        Self { cycles: place[0].load(Ordering::Relaxed), cpu_ns: place[1].load(Ordering::Relaxed) }
    }
}

/// Alarms handled so far.
#[must_use]
pub fn alarms() -> u64 {
    ALARMS.load(Ordering::Relaxed)
}

/// Runs `work`, between calls, with an alarm that comes again and again: a system call in it that somebody else has made to wait is interrupted, whenever
/// it begins.
///
/// # Cost
/// Two system calls.
pub fn interrupting<T>(work: impl FnOnce() -> T) -> T {
    set(INTERRUPT_NS, INTERRUPT_NS);
    let result = work();
    set(0, 0);
    // The next limit arms it.
    DUE.store(u64::MAX, Ordering::Relaxed);
    result
}

/// Puts the alarm in order after a call that has blocked it or switched it off, between calls. Only machine code of a call's own can do either; and the limits of
/// others are not to go unnoticed for it.
///
/// # Cost
/// A system call.
#[cold]
pub fn mend() {
    // The next limit arms it.
    DUE.store(u64::MAX, Ordering::Relaxed);
    // SAFETY: all-zero is a valid signal set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGALRM, crate::poke::SIGNAL] {
        // SAFETY: the set is initialised, and the numbers are signals'.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: reads the set. Unblocking is what the sandbox allows, and cannot fail.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::alarms::EARLY_SHIFT_MAX;
    use crate::contain::Fault;
    use crate::{Ending, Exit, Stack, contain, resume, run};
    use std::ffi::c_void;
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    /// The static state allows one thread at a time to run calls.
    pub(crate) static ONE: Mutex<()> = Mutex::new(());

    /// Runs on a thread of its own, whose alarm it is, to the end or for ever so often.
    pub(crate) fn on_worker_thread(test: impl FnOnce(&CycleClock) + Send + 'static) {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = std::thread::spawn(move || {
            let handlers = contain::install(None).unwrap();
            let clock = CycleClock::calibrate(Duration::from_millis(2));
            install(&clock).unwrap();
            test(&clock);
            limit(u64::MAX);
            std::mem::forget(handlers);
        });
        thread.join().unwrap();
    }

    pub(crate) fn cycles_in(clock: &CycleClock, time: Duration) -> u64 {
        let ns = u64::try_from(time.as_nanos()).unwrap();
        ns * (1 << 20) / clock.to_ns(1 << 20)
    }

    /// A sum that depends on every vector register's lanes and on the order of operations.
    #[inline(never)]
    fn sum(rounds: u32) -> f64 {
        let mut lanes = [1.0f64, 1.1, 1.3, 1.7, 2.1, 2.3, 2.9, 3.1];
        for round in 0..rounds {
            for (i, lane) in lanes.iter_mut().enumerate() {
                *lane = (*lane * 1.000_000_1 + f64::from(round & 7) / 3.0).sqrt() + i as f64;
            }
        }
        lanes.iter().sum()
    }

    unsafe extern "C" fn compute(argument: *mut c_void) -> u32 {
        // SAFETY: the test passes a pointer to its own f64.
        unsafe { *argument.cast::<f64>() = sum(200_000) };
        7
    }

    unsafe extern "C" fn spin(_: *mut c_void) -> u32 {
        loop {
            std::hint::black_box(0);
        }
    }

    unsafe extern "C" fn overflow(_: *mut c_void) -> u32 {
        fn deeper(n: u64) -> u64 {
            let frame = std::hint::black_box([n; 64]);
            if n == u64::MAX {
                return 0;
            }
            deeper(n + 1) + frame[3]
        }
        u32::try_from(deeper(0)).unwrap_or(0)
    }

    #[test]
    fn a_call_that_is_suspended_often_computes_the_same() {
        on_worker_thread(|clock| {
            let expected = sum(200_000);
            let slice = cycles_in(clock, Duration::from_micros(50));
            let mut stacks: Vec<Stack> = (0..2).map(|_| Stack::new(1 << 20).unwrap()).collect();
            let (mut suspensions, mut results) = (0, [0.0f64; 2]);
            // Two calls by turns, so that each resumes after the other has used all registers.
            let mut waiting: Vec<(usize, Exit)> = Vec::new();
            for (i, stack) in stacks.iter_mut().enumerate() {
                limit(cycles() + slice);
                // SAFETY: the entry may be suspended anywhere; its argument outlives it.
                waiting.push((i, unsafe { run(stack, compute, (&raw mut results[i]).cast()) }));
            }
            while let Some((i, exit)) = (!waiting.is_empty()).then(|| waiting.remove(0)) {
                match exit {
                    Exit::Suspended(at) => {
                        suspensions += 1;
                        limit(cycles() + slice);
                        // SAFETY: suspended on this stack, and what it refers to is untouched.
                        waiting.push((i, unsafe { resume(&mut stacks[i], at) }));
                    }
                    exit => assert_eq!(exit, Exit::Returned(7)),
                }
            }
            assert_eq!(results.map(f64::to_bits), [expected.to_bits(); 2]);
            assert!(suspensions >= 2, "only {suspensions} suspensions in two long calls");
        });
    }

    #[test]
    fn an_endless_call_comes_back_and_is_given_up() {
        on_worker_thread(|clock| {
            let mut stack = Stack::new(1 << 20).unwrap();
            for _ in 0..200 {
                limit(cycles() + cycles_in(clock, Duration::from_micros(30)));
                // SAFETY: the entry refers to nothing.
                let exit = unsafe { run(&mut stack, spin, std::ptr::null_mut()) };
                assert!(matches!(exit, Exit::Suspended(_)), "{exit:?}");
            }
        });
    }

    /// Entries of the x87 stack in use, two bits each; 0xffff is none.
    fn x87_tags() -> u16 {
        let mut environment = [0u16; 14];
        // SAFETY: `fnstenv` writes 28 bytes and masks all exceptions, which `fldenv` undoes.
        unsafe {
            core::arch::asm!("fnstenv [{0}]", "fldenv [{0}]", in(reg) environment.as_mut_ptr(), options(nostack));
        };
        environment[4]
    }

    unsafe extern "C" fn use_x87(argument: *mut c_void) -> u32 {
        // SAFETY: never returns, so the compiler does not find the x87 stack changed.
        unsafe { core::arch::asm!("fld1", "fldpi", "fld1", options(nostack, nomem)) };
        if argument.is_null() {
            loop {
                std::hint::spin_loop();
            }
        }
        // SAFETY: raises SIGILL, which ends the call.
        unsafe { core::arch::asm!("ud2", options(noreturn)) }
    }

    #[test]
    fn a_call_in_the_middle_of_x87_code_leaves_an_empty_stack() {
        on_worker_thread(|clock| {
            let mut stack = Stack::new(crate::STACK_BYTES_MIN).unwrap();
            for argument in [std::ptr::null_mut(), std::ptr::dangling_mut()] {
                limit(cycles() + cycles_in(clock, Duration::from_micros(50)));
                // SAFETY: the entry refers to nothing.
                let exit = unsafe { run(&mut stack, use_x87, argument) };
                assert_ne!(exit, Exit::Returned(0));
                assert_eq!(x87_tags(), 0xffff, "{exit:?}");
            }
        });
    }

    unsafe extern "C" fn block_alarm_and_fault(_: *mut c_void) -> u32 {
        // SAFETY: all-zero is a valid signal set.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is initialised.
        unsafe { libc::sigfillset(&raw mut set) };
        // SAFETY: blocks what may be blocked; a fault that is blocked would end the process, so they are left out.
        unsafe { libc::sigdelset(&raw mut set, libc::SIGILL) };
        // SAFETY: as above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
        // SAFETY: raises SIGILL, which ends the call.
        unsafe { core::arch::asm!("ud2", options(noreturn)) }
    }

    #[test]
    fn a_call_that_has_blocked_signals_leaves_none_blocked() {
        on_worker_thread(|clock| {
            let mut stack = Stack::new(crate::STACK_BYTES_MIN).unwrap();
            for _ in 0..3 {
                // SAFETY: the entry refers to nothing.
                let exit = unsafe { run(&mut stack, block_alarm_and_fault, std::ptr::null_mut()) };
                assert_eq!(exit, Exit::Ended(Ending::Fault(Fault::Illegal)));
                limit(cycles() + cycles_in(clock, Duration::from_micros(30)));
                // SAFETY: the entry refers to nothing.
                let exit = unsafe { run(&mut stack, spin, std::ptr::null_mut()) };
                assert!(matches!(exit, Exit::Suspended(_)), "{exit:?}");
            }
        });
    }

    #[test]
    fn a_system_call_that_waits_is_interrupted_and_the_alarm_is_as_before() {
        on_worker_thread(|clock| {
            let (reader, _writer) = std::io::pipe().unwrap();
            let mut byte = 0u8;
            for _ in 0..3 {
                let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
                // SAFETY: one byte, writable.
                let read = interrupting(|| unsafe { libc::read(fd, (&raw mut byte).cast(), 1) });
                let error = io::Error::last_os_error();
                assert_eq!((read, error.kind()), (-1, io::ErrorKind::Interrupted));
                let mut stack = Stack::new(crate::STACK_BYTES_MIN).unwrap();
                limit(cycles() + cycles_in(clock, Duration::from_micros(30)));
                // SAFETY: the entry refers to nothing.
                let exit = unsafe { run(&mut stack, spin, std::ptr::null_mut()) };
                assert!(matches!(exit, Exit::Suspended(_)), "{exit:?}");
            }
        });
    }

    #[test]
    fn a_worker_that_is_held_up_before_a_call_still_has_its_alarm() {
        on_worker_thread(|_| {
            let start = alarms();
            limit(cycles());
            let patience = std::time::Instant::now();
            while alarms() - start < u64::from(2 * EARLY_SHIFT_MAX) {
                assert!(patience.elapsed() < Duration::from_secs(60), "the alarm is off");
            }
            let mut stack = Stack::new(crate::STACK_BYTES_MIN).unwrap();
            // SAFETY: the entry refers to nothing.
            let exit = unsafe { run(&mut stack, spin, std::ptr::null_mut()) };
            assert!(matches!(exit, Exit::Suspended(_)), "{exit:?}");
        });
    }

    #[test]
    fn a_stack_overflow_is_named_and_the_next_call_runs() {
        on_worker_thread(|_| {
            let mut stack = Stack::new(crate::STACK_BYTES_MIN).unwrap();
            for _ in 0..10 {
                // SAFETY: the entry refers to nothing.
                let exit = unsafe { run(&mut stack, overflow, std::ptr::null_mut()) };
                assert_eq!(exit, Exit::Ended(Ending::Fault(Fault::StackOverflow)));
            }
        });
    }
}
