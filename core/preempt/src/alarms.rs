//! The handlers of the [alarm](crate::timer) and the [poke](crate::poke). Nothing in this file but async-signal-safe functions.
#![expect(unsafe_code, reason = "signal handlers")]

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t, ucontext_t};
use microfaas_sys::clock::cycles;

use crate::contain::Fault;
use crate::frame::{LIMIT, WORKER_SP, XSAVE_BYTES, room_below};
use crate::handlers::{end_call, keep_errno, register, set_register};
use crate::switch::{RED_ZONE, SUSPEND_BYTES, suspend_address};
use crate::timer::{ARM_NS_MIN, sync_within};

/// Stray alarms in a row after which a call whose stack pointer is on no known stack is ended.
const STRAY_MAX: usize = 64;

/// When the timer is due, in cycles; `u64::MAX` while it is off.
pub(crate) static DUE: AtomicU64 = AtomicU64::new(u64::MAX);
/// The kernel's number of the timer.
pub(crate) static TIMER: AtomicI32 = AtomicI32::new(-1);
/// Nanoseconds in 2^32 cycles, for the handler.
pub(crate) static NS_PER_4G_CYCLES: AtomicU64 = AtomicU64::new(0);
/// Alarms in a row that found a limit passed and nobody to suspend.
pub(crate) static STRAY: AtomicUsize = AtomicUsize::new(0);
/// Alarms that found a limit passed before its call was entered, since a call was last suspended.
static EARLY: AtomicU32 = AtomicU32::new(0);
/// An alarm before a call comes at most 2 to this times [`ARM_NS_MIN`] after the one before: 5 ms.
pub(crate) const EARLY_SHIFT_MAX: u32 = 8;
/// Alarms handled.
pub(crate) static ALARMS: AtomicU64 = AtomicU64::new(0);

/// Pokes change nothing.
pub(crate) const DEAF: u32 = 0;
/// A poke ends the slice that is about to begin, or has begun.
pub(crate) const LISTENING: u32 = 1;
/// One has come.
pub(crate) const POKED: u32 = 2;

pub(crate) static STATE: AtomicU32 = AtomicU32::new(DEAF);
/// Pokes that came while the worker listened.
pub(crate) static POKES: AtomicU64 = AtomicU64::new(0);

/// # Async-signal safety
/// Yes: one system call.
pub(crate) fn arm(due: u64, now: u64) {
    let rate = u128::from(NS_PER_4G_CYCLES.load(Ordering::Relaxed));
    let ns = u64::try_from((u128::from(due.saturating_sub(now)) * rate) >> 32).unwrap_or(u64::MAX);
    DUE.store(due.max(now), Ordering::Relaxed);
    set(ns.max(ARM_NS_MIN), 0);
}

/// Has the alarm come in `first_ns`, and then every `interval_ns`; 0 is never.
///
/// # Async-signal safety
/// Yes: one system call.
pub(crate) fn set(first_ns: u64, interval_ns: u64) {
    let [it_value, it_interval] = [first_ns, interval_ns].map(|ns| libc::timespec {
        tv_sec: libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::try_from(ns % 1_000_000_000).unwrap_or(0),
    });
    let setting = libc::itimerspec { it_interval, it_value };
    let timer = TIMER.load(Ordering::Relaxed);
    let nothing = std::ptr::null_mut::<libc::itimerspec>();
    // SAFETY: reads one `itimerspec`. The raw call, since the C library's takes an opaque handle of its own.
    unsafe { libc::syscall(libc::SYS_timer_settime, timer, 0, &raw const setting, nothing) };
}

pub(crate) extern "C" fn on_alarm(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel passes a valid context, which we alone look at.
    keep_errno(|| on_limit(unsafe { &mut *context.cast::<ucontext_t>() }));
}

fn on_limit(context: &mut ucontext_t) {
    DUE.store(u64::MAX, Ordering::Relaxed);
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == u64::MAX {
        return;
    }
    let now = cycles();
    if now < limit {
        sync_within(limit);
        return arm(limit, now);
    }
    at_limit(context, now);
}

/// The limit has passed: suspends the call, or looks again soon.
fn at_limit(context: &mut ucontext_t, now: u64) {
    // Alarm and poke may come at once: the second finds the call where the first has sent it.
    if register(context, libc::REG_RIP) == suspend_address() {
        return;
    }
    let sp = register(context, libc::REG_RSP);
    match room_below(sp) {
        Some(room) if room >= SUSPEND_BYTES + XSAVE_BYTES.load(Ordering::Relaxed) => suspend(context, sp),
        // On its own stack with no room left for its registers: answered as what it is about to be.
        Some(_) => end(context, Fault::StackOverflow),
        // On the worker's stack, a few instructions before the call or after it: look again soon. A call that has put its stack pointer elsewhere does not get away with it.
        None => stray(context, now),
    }
}

/// Makes the interrupted call continue in `suspend`, which continues it where it was when it is resumed.
fn suspend(context: &mut ucontext_t, sp: usize) {
    EARLY.store(0, Ordering::Relaxed);
    let sp = sp - RED_ZONE - size_of::<usize>();
    let at = std::ptr::with_exposed_provenance_mut::<usize>(sp);
    let rip = register(context, libc::REG_RIP);
    // SAFETY: on the call's stack, below its red zone, in the room that `on_limit` has checked; unaligned, as a stack pointer may be anything.
    unsafe { at.write_unaligned(rip) };
    set_register(context, libc::REG_RSP, sp);
    set_register(context, libc::REG_RIP, suspend_address());
}

/// The limit has passed and the stack pointer is on no call's stack. Where no call was entered yet, one will be, and the alarm stays on for it: later each time, so that the
/// worker gets there even where an alarm takes longer to handle than the next one to come.
fn stray(context: &mut ucontext_t, now: u64) {
    if WORKER_SP.load(Ordering::Relaxed) == 0 {
        let early = EARLY.fetch_add(1, Ordering::Relaxed).min(EARLY_SHIFT_MAX);
        DUE.store(now, Ordering::Relaxed);
        return set(ARM_NS_MIN << early, 0);
    }
    if STRAY.fetch_add(1, Ordering::Relaxed) < STRAY_MAX {
        arm(now, now);
    } else {
        end(context, Fault::Segment);
    }
}

fn end(context: &mut ucontext_t, fault: Fault) {
    let worker_sp = WORKER_SP.load(Ordering::Relaxed);
    if worker_sp != 0 {
        end_call(context, worker_sp, fault);
    }
}

pub(crate) extern "C" fn on_poke(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    if STATE.load(Ordering::Relaxed) != LISTENING {
        return;
    }
    STATE.store(POKED, Ordering::Relaxed);
    POKES.fetch_add(1, Ordering::Relaxed);
    let now = cycles();
    // At a limit that has passed the alarm is there already, or about to come. Without a limit no call runs; `limit` looks whether it was poked.
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == u64::MAX || limit <= now {
        return;
    }
    LIMIT.store(now, Ordering::Relaxed);
    // SAFETY: the kernel passes a valid context, which we alone look at.
    keep_errno(|| at_limit(unsafe { &mut *context.cast::<ucontext_t>() }, now));
}
