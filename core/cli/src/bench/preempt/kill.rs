//! How far past its budget a call is ended: its CPU time when the worker has taken the core from it, less the budget.

use microfaas_node::{Completion, Status};

use super::figure::Figure;
use super::subject::{Name, Subject};
use crate::bench::report::Report;
use crate::failure::Failure;

/// Kills of each policy in a round.
const KILLS: u32 = 100;
/// Honest calls after which a worker trusts a function again that has overrun; a little more than it needs (`SUSPICIOUS` and `FINE_CALLS` of its table of functions), and more than a new one does.
const HONEST: u32 = 700;
/// First offences in a round.
const FIRST: u32 = 5;

/// Lateness in microseconds.
#[derive(Debug, Default)]
pub(super) struct Kills {
    /// Of functions that the worker knows to overrun.
    again: Figure,
    /// Of the first to overrun after many that did not: it is found out at the end of a coarse slice, of 4 ms.
    first: Figure,
}

impl Kills {
    /// One round: policy `share` with a budget of ten quanta, and policy `kill`, by turns.
    pub(super) fn round(&mut self, subject: &Subject) -> Result<(), Failure> {
        let mut completion = Completion::default();
        for _ in 0..KILLS {
            for name in [Name::Budget1ms, Name::Kill1ms] {
                self.again.add(subject.kill(name, &mut completion)? / 1e3);
            }
        }
        for _ in 0..FIRST {
            let mut honest = 0;
            while honest < HONEST {
                subject.submit(Name::Kill1ms, 1)?.wait_into(&mut completion);
                // One that the machine has held up for a quantum was ended by the policy: then it begins anew.
                honest = if completion.status == Status::Timeout { 0 } else { honest + 1 };
                if honest > 0 {
                    subject.check(&completion, 1)?;
                }
            }
            self.first.add(subject.kill(Name::Kill1ms, &mut completion)? / 1e3);
        }
        Ok(())
    }

    pub(super) fn late_us(&self, quantile: f64) -> f64 {
        self.again.quantile(quantile)
    }

    pub(super) fn add_to(&self, report: &mut Report) {
        report.add("kill_late_us_p50", self.again.quantile(0.5), self.again.n());
        report.add("kill_late_us_p99", self.again.quantile(0.99), self.again.n());
        report.add("kill_late_first_us_p50", self.first.quantile(0.5), self.first.n());
        report.add("kill_late_first_us_p99", self.first.quantile(0.99), self.first.n());
    }
}
