//! The rival of a lazily armed timer, which is the paper's way: a signal every 20 us whatever runs, beside the same function without any.
#![expect(unsafe_code, reason = "installs a signal handler")]

use std::path::Path;
use std::time::{Duration, Instant};

use microfaas_control::{BUDGET_NS_MAX, Limits, Policy};
use microfaas_e2e::inside::Inside;
use microfaas_lane::Status;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

use super::Figure;

const PERIOD: Duration = Duration::from_micros(20);
/// About 2 ms of hashing, of which a timer every 20 us may make fifty.
const HASHES: u32 = 5_000;

extern "C" fn nothing(_: i32) {}

pub(super) fn measure(inside: &mut Inside, hashes: &Path, time: Duration) -> Figure {
    let never = Limits {
        quantum_ns: BUDGET_NS_MAX,
        budget_ns: BUDGET_NS_MAX,
        policy: Policy::Share,
        ..Limits::default()
    };
    let hash = inside.load(hashes, &[("hash_0", never)]).expect("the hashes are a module");
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::SA_ONSTACK | SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("SIGUSR1 may be handled");
    let notify =
        SigevNotify::SigevThreadId { signal: Signal::SIGUSR1, thread_id: gettid().as_raw(), si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify)).expect("a timer");
    let mut set = |period: Duration| {
        let expiration = match period {
            Duration::ZERO => Expiration::OneShot(TimeSpec::from_duration(Duration::ZERO)),
            period => Expiration::Interval(TimeSpec::from_duration(period)),
        };
        timer.set(expiration, TimerSetTimeFlags::empty()).expect("the timer is ours");
    };
    let mut figure = Figure::default();
    let end = Instant::now() + time;
    while figure.0.is_empty() || Instant::now() < end {
        let before = run(inside, hash);
        set(PERIOD);
        let with = run(inside, hash);
        set(Duration::ZERO);
        let after = run(inside, hash);
        let without = f64::midpoint(before.as_secs_f64(), after.as_secs_f64());
        figure.add(100.0 * (1.0 - without / with.as_secs_f64()));
    }
    figure
}

fn run(inside: &mut Inside, hash: u32) -> Duration {
    let body = [HASHES.to_le_bytes().as_slice(), &[7; 64]].concat();
    inside.submit(hash, &body);
    let submission = inside.claim().expect("it was submitted");
    let start = Instant::now();
    inside.start(&submission);
    while inside.resume() {}
    let time = start.elapsed();
    let ended = inside.take().expect("it was completed");
    assert_eq!((ended.status, ended.body.len()), (Status::Ok, 64));
    time
}
