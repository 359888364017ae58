//! Time: the monotonic clock, and the processor's cycle counter turned into it.
#![expect(unsafe_code, reason = "reads the cycle counter")]

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Window of the process's one calibration for [`now_ns`].
const WINDOW: Duration = Duration::from_millis(2);
/// Age at which [`now_ns`] takes its base anew: about a tenth of a second, in which the rate's error adds up to about 1 us.
const BASE_CYCLES_MAX: u64 = 300_000_000;

/// Nanoseconds of `CLOCK_MONOTONIC`. See `clock_gettime(2)`.
///
/// # Panics
/// Never: the clock exists on every Linux.
///
/// # Async-signal safety
/// Yes.
///
/// # Cost
/// About 22 ns (vDSO); no system call.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread, in nanoseconds.
///
/// # Panics
/// Never: the clock exists on every Linux.
///
/// # Async-signal safety
/// Yes.
///
/// # Cost
/// A system call.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("the clock exists on every Linux");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

/// The processor's cycle counter. Not ordered against the instructions around it, which is fine from tens of nanoseconds on.
///
/// # Async-signal safety
/// Yes.
///
/// # Cost
/// About 10 ns on a virtual machine, 7 on bare metal.
#[inline]
#[must_use]
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 has the instruction; a sandbox that forbids it (`PR_SET_TSC`) is not used with this function.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds of `CLOCK_MONOTONIC` within about 1 us, by the cycle counter where it runs at a constant rate on all cores, else from the kernel. The first use
/// in a process measures the rate for 2 ms. Readings of two threads may disagree by the error.
///
/// # Async-signal safety
/// No.
///
/// # Cost
/// About 12 ns: half of [`monotonic_ns`].
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    now().0
}

/// As [`now_ns`], with the reading of [`cycles`] that it is from; 0 where cycles are not time.
///
/// # Cost
/// As [`now_ns`].
#[inline]
#[must_use]
pub fn now() -> (u64, u64) {
    thread_local! {
        static CLOCK: Cell<Option<CycleClock>> = const { Cell::new(None) };
    }
    let now = cycles();
    match CLOCK.get() {
        Some(clock) if !clock.is_older_than(now, BASE_CYCLES_MAX) => (clock.at(now), now),
        _ => {
            let Some(mut clock) = *rate() else { return (monotonic_ns(), 0) };
            clock.rebase();
            CLOCK.set(Some(clock));
            (clock.base_ns, clock.base_cycles)
        }
    }
}

/// What [`cycles`] was at that time of `CLOCK_MONOTONIC`, a little while ago; 0 where cycles are not time. Within what the rate's error adds up to since then.
///
/// # Cost
/// A division of 128 bits beside [`now_ns`].
#[must_use]
pub fn cycles_at(ns: u64) -> u64 {
    let (now_ns, now) = now();
    let Some(clock) = rate().filter(|_| now != 0) else { return 0 };
    now.saturating_sub(clock.to_cycles(now_ns.saturating_sub(ns)))
}

/// The process's calibration; `None` where cycles are not time.
fn rate() -> &'static Option<CycleClock> {
    static RATE: OnceLock<Option<CycleClock>> = OnceLock::new();
    RATE.get_or_init(|| cycles_are_time().then(|| CycleClock::calibrate(WINDOW)))
}

/// Whether the kernel itself takes the time from the cycle counter, or could: then it is constant in rate and the same on all cores.
fn cycles_are_time() -> bool {
    let sources = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    std::fs::read_to_string(sources).is_ok_and(|text| text.split_whitespace().any(|name| name == "tsc"))
}

/// Turns cycles into nanoseconds of `CLOCK_MONOTONIC`, by a fixed rate measured once.
#[derive(Debug, Clone, Copy)]
pub struct CycleClock {
    base_cycles: u64,
    base_ns: u64,
    /// Nanoseconds per cycle, times 2^32.
    scale: u64,
}

/// This process's [rate](CycleClock::rate), for processes that it starts; 0 where cycles are not time. Measured by whoever asks first, in 2 ms.
#[must_use]
pub fn known_rate() -> u64 {
    rate().map_or(0, |clock| clock.rate())
}

impl CycleClock {
    /// A clock of a rate that another process of this machine has measured.
    #[must_use]
    pub fn with_rate(rate: u64) -> Self {
        let (base_cycles, base_ns) = Self::pair();
        Self { base_cycles, base_ns, scale: rate }
    }

    /// Nanoseconds per cycle, times 2^32.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.scale
    }

    /// Measures the rate against `CLOCK_MONOTONIC` for `window`, spinning. The error is about 100 ns divided by the window: 0.01 % for 1 ms.
    #[must_use]
    pub fn calibrate(window: Duration) -> Self {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let (start_cycles, start_ns) = Self::pair();
        let (end_cycles, end_ns) = loop {
            let (now_cycles, now_ns) = Self::pair();
            if now_ns - start_ns >= window && now_cycles > start_cycles {
                break (now_cycles, now_ns);
            }
        };
        let scale = (u128::from(end_ns - start_ns) << 32) / u128::from(end_cycles - start_cycles);
        Self { base_cycles: end_cycles, base_ns: end_ns, scale: u64::try_from(scale).unwrap_or(u64::MAX) }
    }

    /// The closest of a few readings of both clocks, so that an interruption between the two does no harm.
    fn pair() -> (u64, u64) {
        let read = || {
            let before = cycles();
            let ns = monotonic_ns();
            let after = cycles();
            (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), ns)
        };
        let (_, cycles, ns) = [read(), read(), read(), read()].into_iter().min().unwrap_or_else(read);
        (cycles, ns)
    }

    /// Whether the base is more than `cycles` before `now`.
    #[inline]
    #[must_use]
    pub fn is_older_than(&self, now: u64, cycles: u64) -> bool {
        now.wrapping_sub(self.base_cycles) > cycles
    }

    /// Takes the base anew from the kernel, so that the rate's error does not add up.
    pub fn rebase(&mut self) {
        (self.base_cycles, self.base_ns) = Self::pair();
    }

    /// Nanoseconds in that many cycles.
    #[inline]
    #[must_use]
    pub fn to_ns(&self, cycles: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "half a billion years fit")]
        let ns = ((u128::from(cycles) * u128::from(self.scale)) >> 32) as u64;
        ns
    }

    /// Cycles in that many nanoseconds.
    #[inline]
    #[must_use]
    pub fn to_cycles(&self, ns: u64) -> u64 {
        u64::try_from((u128::from(ns) << 32) / u128::from(self.scale.max(1))).unwrap_or(u64::MAX)
    }

    /// `CLOCK_MONOTONIC` at a reading of [`cycles`] taken after the calibration; drifts from the kernel's by the measured rate's error.
    #[inline]
    #[must_use]
    pub fn at(&self, cycles: u64) -> u64 {
        self.base_ns + self.to_ns(cycles.saturating_sub(self.base_cycles))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_the_monotonic_clock() {
        let _ = now_ns();
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(40));
            let before = monotonic_ns();
            let now = now_ns();
            let after = monotonic_ns();
            assert!(
                now + 200_000 > before && now < after + 200_000,
                "{now} is not between {before} and {after}"
            );
        }
    }

    #[test]
    fn a_time_that_has_passed_has_its_cycles() {
        let (then_ns, then) = now();
        std::thread::sleep(Duration::from_millis(5));
        let found = cycles_at(then_ns);
        // That of a base that was taken anew between the two, 200 us of a machine of 5 GHz at most; and the rate's, a thousandth, however long this took.
        let error = 1_000_000 + cycles().saturating_sub(then) / 1000;
        assert!(then == 0 || found.abs_diff(then) < error, "{found} is not about {then}");
    }

    #[test]
    fn cycles_agree_with_the_kernel() {
        let clock = CycleClock::calibrate(Duration::from_millis(5));
        let (start, start_ns) = CycleClock::pair();
        std::thread::sleep(Duration::from_millis(30));
        let (end, end_ns) = CycleClock::pair();
        let (by_cycles, by_kernel) = (clock.to_ns(end - start), end_ns - start_ns);
        let error = by_cycles.abs_diff(by_kernel);
        assert!(error < by_kernel / 20, "{by_cycles} ns by cycles, {by_kernel} ns by the kernel");
        assert!(clock.at(end) >= clock.at(start));
    }
}
