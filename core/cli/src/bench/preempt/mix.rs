//! Short calls among long ones: an open loop on one worker, 98 % calls of 5 us and 2 % of 10 ms or without end, at 70 % of what the worker can
//! do if all calls run to their end. Calls are due at times that do not depend on answers (Poisson, from a seeded generator), and
//! latency counts from then: a caller that is held up makes no call look better.

use std::time::Duration;

use hdrhistogram::Histogram;
use microfaas_node::{Call, CallError, Completion, Status};
use microfaas_sys::clock::cycles;

use super::subject::{ENDLESS, Name, Subject, check_killed, float};
use crate::bench::samples::histogram;
use crate::bench::stopped;
use crate::failure::Failure;

const SHORT: Duration = Duration::from_micros(5);
const LONG: Duration = Duration::from_millis(10);
const LONG_SHARE: f64 = 0.02;
const LOAD: f64 = 0.7;
const SEED: u64 = 0x6d69_6372_6f66_6161;

/// A way to treat the long calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    /// As it is called in the report.
    pub(super) label: &'static str,
    pub(super) p50_key: &'static str,
    pub(super) p99_key: &'static str,
    name: Name,
    /// The long calls do not end by themselves.
    endless: bool,
}

impl Policy {
    const fn new(
        label: &'static str,
        p50_key: &'static str,
        p99_key: &'static str,
        name: Name,
        endless: bool,
    ) -> Self {
        Self { label, p50_key, p99_key, name, endless }
    }
}

/// All that are measured. Without preemption there is no answer beside an endless call, so there is no such row.
pub(super) const POLICIES: [Policy; 5] = [
    Policy::new("share", "mix_short_us_p50_share", "mix_short_us_p99_share", Name::Mixed100us, false),
    Policy::new("kill", "mix_short_us_p50_kill", "mix_short_us_p99_kill", Name::Kill100us, false),
    Policy::new("off", "mix_short_us_p50_off", "mix_short_us_p99_off", Name::Off, false),
    Policy::new(
        "share, endless",
        "mix_endless_short_us_p50_share",
        "mix_endless_short_us_p99_share",
        Name::Budget10ms,
        true,
    ),
    Policy::new(
        "kill, endless",
        "mix_endless_short_us_p50_kill",
        "mix_endless_short_us_p99_kill",
        Name::Kill100us,
        true,
    ),
];

/// See the module.
#[derive(Debug)]
pub(super) struct Mix {
    short_count: u32,
    long_count: u32,
    random: fastrand::Rng,
    /// Latencies of short calls in nanoseconds, by policy.
    pub(super) short: [Histogram<u64>; 5],
    /// How late calls were submitted, in nanoseconds: what the caller itself, held up by the machine, has added.
    late: Histogram<u64>,
    /// Short calls that the policy `kill` has ended: whom the machine held up for a quantum, in interrupts or outside the virtual machine.
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
        Ok(Self { short_count, long_count, random, short, late, short_killed: 0 })
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
        let start = cycles();
        let end = start + subject.clock.to_cycles(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let mut due = start + self.gap(subject);
        let mut count = self.next_count(policy);
        while due < end || !flights.is_empty() {
            while due < end && due <= cycles() {
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
                }
            }
        }
        Ok(())
    }

    /// What the next call computes.
    fn next_count(&mut self, policy: Policy) -> u32 {
        match self.random.f64() < LONG_SHARE {
            true if policy.endless => ENDLESS,
            true => self.long_count,
            false => self.short_count,
        }
    }

    /// Whether a call ended as it should. One that is stopped for its length under `kill` is no failure, it is the policy.
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
        if policy.name == Name::Kill100us && completion.status == Status::Timeout {
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

    /// How many short calls were ended by the policy `kill`.
    pub(super) fn killed(&self) -> f64 {
        float(self.short_killed)
    }

    /// The latencies as a table.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
            "short calls beside long ones", "n", "p50 us", "p90", "p99", "p99.9", "max"
        );
        for (i, policy) in POLICIES.iter().enumerate() {
            text += &format!("  {:<26}{:>10}", policy.label, self.short[i].len());
            for quantile in [0.5, 0.9, 0.99, 0.999, 1.0] {
                text += &format!("{:>10.1}", self.quantile_us(i, quantile));
            }
            text.push('\n');
        }
        text.push('\n');
        text
    }
}
