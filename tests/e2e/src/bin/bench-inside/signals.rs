//! How late signals of timers are, and what happens between one and the next call.
#![expect(unsafe_code, reason = "installs signal handlers and is entered as a function")]

use std::ffi::c_void;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libc::{c_int, siginfo_t};
use microfaas_abi::OUTCOME_OK;
use microfaas_control::{Limits, Policy};
use microfaas_e2e::inside::Inside;
use microfaas_lane::Status;
use microfaas_sys::clock::{CycleClock, cycles, monotonic_ns};
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

use super::Figure;

/// When a handler here was entered, in cycles.
static ENTERED: AtomicU64 = AtomicU64::new(0);
/// When [`stamp`] ran, in cycles.
static STARTED: AtomicU64 = AtomicU64::new(0);
/// The worker's handler of the alarm.
static ALARM: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(_: c_int) {
    ENTERED.store(cycles(), Ordering::Relaxed);
}

/// How late a plain one-shot timer's handler is entered, in microseconds: what no kill can be below.
pub(super) fn timer_floor(clock: &CycleClock, time: Duration) -> Figure {
    let action =
        SigAction::new(SigHandler::Handler(note), SaFlags::SA_ONSTACK | SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler stores a number.
    unsafe { sigaction(Signal::SIGUSR2, &action) }.expect("SIGUSR2 may be handled");
    let notify =
        SigevNotify::SigevThreadId { signal: Signal::SIGUSR2, thread_id: gettid().as_raw(), si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify)).expect("a timer");
    let mut figure = Figure::default();
    let end = Instant::now() + time;
    while Instant::now() < end {
        ENTERED.store(0, Ordering::Relaxed);
        // Not always the same, so that it does not fall in step with the kernel's tick.
        let wait_ns = 60_000 + figure.0.len() as u64 * 7_919 % 140_000;
        let due_ns = monotonic_ns() + wait_ns;
        let due = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(due_ns)));
        timer.set(due, TimerSetTimeFlags::TFD_TIMER_ABSTIME).expect("the timer is ours");
        while ENTERED.load(Ordering::Relaxed) == 0 {
            std::hint::spin_loop();
        }
        let (entered, now, now_ns) = (ENTERED.load(Ordering::Relaxed), cycles(), monotonic_ns());
        let entered_ns = now_ns - clock.to_ns(now.wrapping_sub(entered));
        figure.add(entered_ns.saturating_sub(due_ns) as f64 / 1e3);
    }
    figure
}

extern "C" fn note_alarm(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    ENTERED.store(cycles(), Ordering::Relaxed);
    let handler = ALARM.load(Ordering::Relaxed);
    // SAFETY: `next_call` has stored a handler of this type.
    let handler =
        unsafe { std::mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(handler) };
    handler(signal, info, context);
}

/// An entry: a function that only says when it began.
unsafe extern "C" fn stamp(_: *mut c_void) -> u32 {
    STARTED.store(cycles(), Ordering::Relaxed);
    OUTCOME_OK
}

/// From the alarm's handler that ends a call to the first instruction of the next call, in microseconds: the switch, the verdict, the
/// answer, the reset, the claim of the next call and its start.
pub(super) fn next_call(inside: &mut Inside, hashes: &Path, time: Duration) -> Figure {
    let kill = Limits { quantum_ns: 50_000, budget_ns: 50_000, policy: Policy::Kill, ..Limits::default() };
    let endless = inside.load(hashes, &[("hash_1", kill)]).expect("the hashes are a module");
    let stamp = inside.add_entry(stamp, endless, Limits::default());
    note_alarms();
    let clock = inside.clock();
    let body = [u32::MAX.to_le_bytes().as_slice(), &[7; 64]].concat();
    let mut figure = Figure::default();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let calls = [inside.submit(endless, &body), inside.submit(stamp, b"")];
        for _ in calls {
            let submission = inside.claim().expect("it was submitted");
            inside.start(&submission);
            while inside.resume() {}
        }
        let (entered, started) = (ENTERED.load(Ordering::Relaxed), STARTED.load(Ordering::Relaxed));
        let ended =
            [inside.take(), inside.take()].map(|ended| ended.map(|ended| (ended.ticket, ended.status)));
        let [killed, next] = calls;
        // Where the machine has held a call up for a whole slice, they have changed places.
        if ended == [Some((killed, Status::Timeout)), Some((next, Status::Ok))] {
            figure.add(clock.to_ns(started.wrapping_sub(entered)) as f64 / 1e3);
        }
        let statuses = ended.map(|ended| ended.map(|(_, status)| status == Status::Ok));
        assert!(statuses.contains(&Some(true)) && statuses.contains(&Some(false)), "{ended:?}");
    }
    figure
}

/// Puts [`note_alarm`] before the worker's handler.
fn note_alarms() {
    // SAFETY: all-zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks for what is installed, into a live local.
    unsafe { libc::sigaction(libc::SIGALRM, std::ptr::null(), &raw mut action) };
    ALARM.store(action.sa_sigaction, Ordering::Relaxed);
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = note_alarm;
    action.sa_sigaction = handler as usize;
    // SAFETY: mask and flags are those of the worker's handler, which this one calls.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
}
