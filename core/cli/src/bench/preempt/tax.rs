//! What protection takes from functions that never overrun, or that run for long alone: hashes per second at a quantum, beside hashes per second
//! of the same code in the same worker with limits of an hour, for which no alarm comes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use microfaas_node::Completion;

use super::figure::Figure;
use super::subject::{Name, Subject};
use crate::failure::Failure;

/// The quanta that are compared with [`Name::Off`].
const PROTECTED: [Name; 3] = [Name::Quantum20us, Name::Quantum100us, Name::Quantum1ms];
/// What a long call takes: so short that most of them are not disturbed by the machine, which takes the core away for milliseconds a few times in a second.
const LONG: Duration = Duration::from_millis(10);
/// For how long calls of one hash are made at a time.
const BATCH: Duration = Duration::from_millis(4);
/// Calls of one hash in flight: enough that the worker never waits.
const WIDTH: usize = 64;

/// The taxes in per cent, by quantum.
#[derive(Debug, Default)]
pub(super) struct Taxes {
    /// One call that hashes for long.
    pub(super) long: [Figure; 3],
    /// One call for each hash.
    pub(super) calls: [Figure; 3],
    /// Calls of one hash per second, with limits of an hour.
    pub(super) rate_off: Figure,
}

impl Taxes {
    /// One round, in which both variants are compared so often: each protected rate between two unprotected ones.
    pub(super) fn round(&mut self, subject: &Subject, long_count: u32, times: u32) -> Result<(), Failure> {
        for _ in 0..times {
            let mut before = long_rate(subject, Name::Off, long_count)?;
            for (name, figure) in PROTECTED.into_iter().zip(&mut self.long) {
                let with = long_rate(subject, name, long_count)?;
                let after = long_rate(subject, Name::Off, long_count)?;
                figure.add(tax_pct(before, with, after));
                before = after;
            }
        }
        for _ in 0..times {
            let mut before = call_rate(subject, Name::Off)?;
            for (name, figure) in PROTECTED.into_iter().zip(&mut self.calls) {
                let with = call_rate(subject, name)?;
                let after = call_rate(subject, Name::Off)?;
                figure.add(tax_pct(before, with, after));
                self.rate_off.add(after);
                before = after;
            }
        }
        Ok(())
    }
}

/// Hashes that a long call makes.
pub(super) fn long_count(subject: &Subject) -> Result<u32, Failure> {
    subject.hashes_in(LONG)
}

fn tax_pct(before: f64, with: f64, after: f64) -> f64 {
    100.0 * (1.0 - with / f64::midpoint(before, after))
}

/// Hashes per second of one call.
fn long_rate(subject: &Subject, name: Name, count: u32) -> Result<f64, Failure> {
    let mut completion = Completion::default();
    let start = Instant::now();
    subject.hash(name, count, &mut completion)?;
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// Calls of one hash per second.
fn call_rate(subject: &Subject, name: Name) -> Result<f64, Failure> {
    let (mut completion, mut calls) = (Completion::default(), VecDeque::with_capacity(WIDTH));
    for _ in 0..WIDTH {
        calls.push_back(subject.submit(name, 1)?);
    }
    let (mut count, start) = (0u32, Instant::now());
    while let Some(mut call) = calls.pop_front() {
        while !call.try_take_into(&mut completion) {
            std::hint::spin_loop();
        }
        subject.check(&completion, 1)?;
        count += 1;
        if !count.is_multiple_of(64) || start.elapsed() < BATCH {
            calls.push_back(subject.submit(name, 1)?);
            continue;
        }
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        for call in calls {
            call.wait_into(&mut completion);
            subject.check(&completion, 1)?;
        }
        return Ok(rate);
    }
    Ok(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_lost_is_ten_per_cent() {
        assert!((tax_pct(90.0, 90.0, 110.0) - 10.0).abs() < 1e-9);
        assert!(tax_pct(100.0, 101.0, 100.0) < 0.0, "noise may make it less than nothing");
    }
}
