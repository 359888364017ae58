//! Short calls among long ones: an open loop on one worker, 98 % calls of 5 us and 2 % of 10 ms or without end, at 70 % of what the worker can
//! do if all calls run to their end. Calls are due at times that do not depend on answers (Poisson, from a seeded generator), and
//! latency counts from then: a caller that is held up makes no call look better.
//!
//! The machine takes part: a thread of its own that wakes on one of the two cores may keep it for a tick of its scheduler, some milliseconds, a few
//! times in a second, and all calls that are due in that time are late by it. A p99 of everything is about how often that happened. So there is also
//! the p99 of each window of 100 ms, of which the median is what a window has in which it did not happen, and there is the same load without its long calls.

use std::time::Duration;

use hdrhistogram::Histogram;
use microfaas_node::{BUDGET_NS_MAX, Call, CallError, Completion, Status};
use microfaas_sys::clock::cycles;

use super::figure::Figure;
use super::subject::{ENDLESS, Name, Subject, check_killed, float};
use crate::bench::samples::histogram;
use crate::bench::stopped;
use crate::failure::Failure;

const SHORT: Duration = Duration::from_micros(5);
const LONG: Duration = Duration::from_millis(10);
const LONG_SHARE: f64 = 0.02;
const LOAD: f64 = 0.7;
/// By when they were due, calls are summed up in windows of this length.
const WINDOW: Duration = Duration::from_millis(100);
/// A window of fewer short calls has no p99.
const WINDOW_CALLS_MIN: u64 = 100;
const SEED: u64 = 0x6d69_6372_6f66_6161;

/// A way to treat the long calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// As it is called in the report.
    pub(super) label: &'static str,
    /// Of its figures in the report: median and p99 of all short calls, and the median over the windows of a window's p99.
    pub(super) keys: [&'static str; 3],
    name: Name,
    long: Long,
}

/// The calls that come between the short ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Long {
    /// They are left out: what the machine does to short calls by itself.
    None,
    /// They take [`LONG`].
    Ends,
    /// They do not end by themselves.
    Endless,
}

/// All that are measured. Without preemption there is no answer beside an endless call, so there is no such row.
pub(super) const POLICIES: [Policy; 6] = [
    Policy {
        label: "share",
        keys: ["mix_short_us_p50_share", "mix_short_us_p99_share", "mix_short_us_window_p99_share"],
        name: Name::Mixed100us,
        long: Long::Ends,
    },
    Policy {
        label: "kill",
        keys: ["mix_short_us_p50_kill", "mix_short_us_p99_kill", "mix_short_us_window_p99_kill"],
        name: Name::Kill100us,
        long: Long::Ends,
    },
    Policy {
        label: "off",
        keys: ["mix_short_us_p50_off", "mix_short_us_p99_off", "mix_short_us_window_p99_off"],
        name: Name::Off,
        long: Long::Ends,
    },
    Policy {
        label: "share, endless",
        keys: [
            "mix_endless_short_us_p50_share",
            "mix_endless_short_us_p99_share",
            "mix_endless_short_us_window_p99_share",
        ],
        name: Name::Budget10ms,
        long: Long::Endless,
    },
    Policy {
        label: "kill, endless",
        keys: [
            "mix_endless_short_us_p50_kill",
            "mix_endless_short_us_p99_kill",
            "mix_endless_short_us_window_p99_kill",
        ],
        name: Name::Kill100us,
        long: Long::Endless,
    },
    Policy {
        label: "share, no long calls",
        keys: [
            "mix_none_short_us_p50_share",
            "mix_none_short_us_p99_share",
            "mix_none_short_us_window_p99_share",
        ],
        name: Name::Quantum100us,
        long: Long::None,
    },
];

/// See the module.
#[derive(Debug)]
pub(super) struct Mix {
    short_count: u32,
    long_count: u32,
    random: fastrand::Rng,
    /// Latencies of short calls in nanoseconds, by policy.
    pub(super) short: [Histogram<u64>; 6],
    /// Their p99 in each window in microseconds, by policy.
    pub(super) windows: [Figure; 6],
    /// How late calls were submitted, in nanoseconds: what the caller itself, held up by the machine, has added.
    late: Histogram<u64>,
    /// Short calls that the policy `kill` or a budget has ended: whom the machine held up for as long, in interrupts or outside the virtual machine.
    short_killed: u64,
}

/// A call on its way.
#[derive(Debug)]
struct Flight {
    call: Call,
    due: u64,
    count: u32,
}

impl Mix {
    pub(super) fn new(subject: &Subject) -> Result<Self, Failure> {
        let (short_count, long_count) = (subject.hashes_in(SHORT)?, subject.hashes_in(LONG)?);
        // Known beforehand: finding it takes the caller as long as the call.
        [short_count, long_count].iter().for_each(|count| subject.know(*count));
        let short = POLICIES.map(|_| histogram());
        let (random, late) = (fastrand::Rng::with_seed(SEED), histogram());
        let windows = POLICIES.map(|_| Figure::default());
        Ok(Self { short_count, long_count, random, short, windows, late, short_killed: 0 })
    }

    /// One stretch of each policy.
    pub(super) fn round(&mut self, subject: &Subject, time: Duration) -> Result<(), Failure> {
        (0..POLICIES.len()).try_for_each(|policy| self.stretch(subject, policy, time))
    }

    /// Cycles until the next call is due.
    fn gap(&mut self, subject: &Subject) -> u64 {
        let mean_s = (1.0 - LONG_SHARE) * SHORT.as_secs_f64() + LONG_SHARE * LONG.as_secs_f64();
        let gap_ns = -(1.0 - self.random.f64()).ln() * mean_s / LOAD * 1e9;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "some milliseconds at most"
        )]
        subject.clock.to_cycles(gap_ns as u64)
    }

    fn stretch(&mut self, subject: &Subject, index: usize, time: Duration) -> Result<(), Failure> {
        let policy = POLICIES[index];
        let mut completion = Completion::default();
        let mut flights: Vec<Flight> = Vec::new();
        let window = subject.clock.to_cycles(u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX));
        let mut windows: Vec<Histogram<u64>> = Vec::new();
        let start = cycles();
        let end = start + subject.clock.to_cycles(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let mut due = start + self.gap(subject);
        let mut count = self.next_count(policy);
        while due < end || !flights.is_empty() {
            while due < end && due <= cycles() {
                if policy.long == Long::None && count != self.short_count {
                    due += self.gap(subject);
                    count = self.next_count(policy);
                    continue;
                }
                match subject.try_submit(policy.name, count) {
                    Ok(call) => {
                        let late = subject.clock.to_ns(cycles().saturating_sub(due));
                        self.late.saturating_record(late.max(1));
                        flights.push(Flight { call, due, count });
                    }
                    // It stays due.
                    Err(CallError::Overloaded { .. }) => break,
                    Err(error) => return Err(stopped(error)),
                }
                due += self.gap(subject);
                count = self.next_count(policy);
            }
            let mut i = 0;
            while let Some(flight) = flights.get_mut(i) {
                if !flight.call.try_take_into(&mut completion) {
                    i += 1;
                    continue;
                }
                let flight = flights.swap_remove(i);
                let latency = subject.clock.to_ns(cycles().saturating_sub(flight.due));
                self.check(subject, policy, flight.count, &completion)?;
                if flight.count == self.short_count {
                    self.short[index].saturating_record(latency.max(1));
                    let window = usize::try_from((flight.due - start) / window).unwrap_or(usize::MAX);
                    while windows.len() <= window {
                        windows.push(histogram());
                    }
                    windows[window].saturating_record(latency.max(1));
                }
            }
        }
        for window in windows.iter().filter(|window| window.len() >= WINDOW_CALLS_MIN) {
            self.windows[index].add(float(window.value_at_quantile(0.99)) / 1e3);
        }
        Ok(())
    }

    /// What the next call computes.
    fn next_count(&mut self, policy: Policy) -> u32 {
        match self.random.f64() < LONG_SHARE {
            true if policy.long == Long::Endless => ENDLESS,
            true => self.long_count,
            false => self.short_count,
        }
    }

    /// Whether a call ended as it should. One that is stopped for its length is no failure, it is the policy.
    fn check(
        &mut self,
        subject: &Subject,
        policy: Policy,
        count: u32,
        completion: &Completion,
    ) -> Result<(), Failure> {
        if count == ENDLESS {
            return check_killed(completion);
        }
        if policy.name.budget_ns() < BUDGET_NS_MAX && completion.status == Status::Timeout {
            self.short_killed += u64::from(count == self.short_count);
            return Ok(());
        }
        subject.check(completion, count)
    }

    /// A quantile of the short calls' latencies in microseconds.
    pub(super) fn quantile_us(&self, index: usize, quantile: f64) -> f64 {
        float(self.short[index].value_at_quantile(quantile)) / 1e3
    }

    /// A quantile of how late calls were submitted, in microseconds.
    pub(super) fn late_us(&self, quantile: f64) -> f64 {
        float(self.late.value_at_quantile(quantile)) / 1e3
    }

    /// How many were submitted.
    pub(super) fn late_n(&self) -> u64 {
        self.late.len()
    }

    /// How many short calls were ended by the policy `kill` or a budget.
    pub(super) fn killed(&self) -> f64 {
        float(self.short_killed)
    }

    /// The latencies as a table.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}\n",
            "short calls beside long ones", "n", "p50 us", "p90", "p99", "p99.9", "max", "window p99"
        );
        for (i, policy) in POLICIES.iter().enumerate() {
            text += &format!("  {:<26}{:>10}", policy.label, self.short[i].len());
            for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
                text += &format!("{:>10.1}", self.quantile_us(i, quantile));
            }
            text += &format!("{:>12.1}\n", self.windows[i].median());
        }
        text.push('\n');
        text
    }
}
