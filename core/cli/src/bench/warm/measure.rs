//! Single figures of a running node, each through its public interface; every answer is checked before it counts.

use std::collections::VecDeque;
use std::time::Duration;

use hdrhistogram::Histogram;
use microfaas_node::{Call, Completion, FunctionHandle, Node, Request, Status};
use microfaas_sys::clock::{CycleClock, cycles, monotonic_ns};

use crate::bench::samples::histogram;
use crate::bench::{machine, stopped};
use crate::failure::Failure;

/// Round trips before the first that counts.
const WARM_UP: u32 = 500;
/// Longer than a worker spins.
const UNTIL_ASLEEP_NS: u64 = 200_000;
/// Time that a worker has to go to sleep.
const AWAKE_NS_MAX: u64 = 30_000_000_000;

/// A node, its echo function and a clock.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) node: Node,
    pub(super) echo: FunctionHandle,
    pub(super) clock: CycleClock,
    /// Process id of the worker.
    pub(super) pid: u32,
}

/// Requests, each with a body that differs from those before it where it has room for a number. They are written in advance: a body that was stored just before it
/// is copied would make the copy wait for the store, which is no cost of the call.
#[derive(Debug)]
struct Body {
    bodies: Vec<Vec<u8>>,
    number: usize,
}

impl Body {
    /// Bodies of one length, in bytes together.
    const BYTES: usize = 64 * 1024;

    fn new(len: usize) -> Self {
        let count = (Self::BYTES / len.max(1)).clamp(2, 256);
        let body = |number: usize| {
            let mut bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            for (to, from) in bytes.iter_mut().zip((number as u64 + 1).to_le_bytes()) {
                *to = from;
            }
            bytes
        };
        Self { bodies: (0..count).map(body).collect(), number: 0 }
    }

    fn next(&mut self) -> &[u8] {
        self.number = (self.number + 1) % self.bodies.len();
        &self.bodies[self.number]
    }
}

impl Subject {
    /// Round trips at one in flight, for that time: nanoseconds, each with one reading of the clock in it.
    pub(super) fn round_trips(&self, len: usize, time: Duration) -> Result<Histogram<u64>, Failure> {
        let (mut body, mut completion, mut times) = (Body::new(len), Completion::default(), histogram());
        for _ in 0..WARM_UP {
            self.round_trip(body.next(), &mut completion)?;
        }
        let end = cycles() + self.clock.to_cycles(nanoseconds(time));
        while cycles() < end {
            times.saturating_record(self.round_trip(body.next(), &mut completion)?.max(1));
        }
        Ok(times)
    }

    fn round_trip(&self, body: &[u8], completion: &mut Completion) -> Result<u64, Failure> {
        let start = cycles();
        let call = self.node.submit(self.echo, Request::new(body)).map_err(stopped)?;
        call.wait_into(completion);
        let spent = cycles().wrapping_sub(start);
        check(completion, body)?;
        Ok(self.clock.to_ns(spent))
    }

    /// Calls per second with `width` in flight, and how many there were.
    pub(super) fn rate(&self, len: usize, width: usize, time: Duration) -> Result<(f64, u64), Failure> {
        let (mut sent, mut expected) = (Body::new(len), Body::new(len));
        let (mut completion, mut calls) = (Completion::default(), VecDeque::with_capacity(width));
        let submit = |calls: &mut VecDeque<Call>, body: &[u8]| -> Result<(), Failure> {
            calls.push_back(self.node.submit(self.echo, Request::new(body)).map_err(stopped)?);
            Ok(())
        };
        for _ in 0..width {
            submit(&mut calls, sent.next())?;
        }
        let (mut count, mut start) = (0_u64, cycles());
        let warm_up = u64::from(WARM_UP);
        let time = self.clock.to_cycles(nanoseconds(time));
        loop {
            // The oldest is the next to come, since one worker answers in order.
            let mut call = calls.pop_front().expect("at least one is always in flight");
            while !call.try_take_into(&mut completion) {
                std::hint::spin_loop();
            }
            check(&completion, expected.next())?;
            count += 1;
            if count == warm_up {
                start = cycles();
            }
            if count > warm_up && count.is_multiple_of(64) {
                let spent = cycles().wrapping_sub(start);
                if spent >= time {
                    let n = count - warm_up;
                    return self.finish(calls, &mut expected, n, spent);
                }
            }
            submit(&mut calls, sent.next())?;
        }
    }

    /// Waits for what is left; calls per second.
    fn finish(
        &self,
        calls: VecDeque<Call>,
        expected: &mut Body,
        n: u64,
        spent: u64,
    ) -> Result<(f64, u64), Failure> {
        for call in calls {
            check(&call.wait(), expected.next())?;
        }
        Ok((float(n) * 1e9 / float(self.clock.to_ns(spent)), n))
    }

    /// Calls to a worker that sleeps, from a caller that is awake: nanoseconds.
    pub(super) fn wakes(&self, time: Duration) -> Result<Histogram<u64>, Failure> {
        let (mut body, mut completion, mut times) = (Body::new(64), Completion::default(), histogram());
        let end = monotonic_ns() + nanoseconds(time);
        while times.is_empty() || monotonic_ns() < end {
            let idle = monotonic_ns();
            while monotonic_ns() - idle < UNTIL_ASLEEP_NS || !machine::sleeps(self.pid) {
                if monotonic_ns() - idle > AWAKE_NS_MAX {
                    return Err(stopped("the worker does not go to sleep"));
                }
                std::hint::spin_loop();
            }
            times.saturating_record(self.round_trip(body.next(), &mut completion)?.max(1));
        }
        Ok(times)
    }

    /// CPU time of the worker in per cent of a core, while nothing is asked of it.
    pub(super) fn idle_pct(&self, time: Duration) -> Result<f64, Failure> {
        // What it spins after its last call is no idleness.
        std::thread::sleep(Duration::from_millis(50));
        let unknown = || stopped(format!("cannot read the CPU time of the worker (pid {})", self.pid));
        let (before, start) = (machine::cpu_ns(self.pid).ok_or_else(unknown)?, monotonic_ns());
        std::thread::sleep(time);
        let (after, end) = (machine::cpu_ns(self.pid).ok_or_else(unknown)?, monotonic_ns());
        Ok(100.0 * float(after - before) / float(end - start))
    }

    /// What one reading of the clock costs, in nanoseconds.
    pub(super) fn clock_ns(&self) -> f64 {
        const READS: u32 = 100_000;
        let start = cycles();
        for _ in 0..READS {
            std::hint::black_box(cycles());
        }
        float(self.clock.to_ns(cycles().wrapping_sub(start))) / f64::from(READS)
    }
}

fn check(completion: &Completion, body: &[u8]) -> Result<(), Failure> {
    if completion.status == Status::Ok && completion.body == body {
        return Ok(());
    }
    Err(stopped(format!(
        "a wrong answer: {:?}, {} bytes for {}; {}",
        completion.status,
        completion.body.len(),
        body.len(),
        completion.detail
    )))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "counts and times are far below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_requests_differ() {
        let mut body = Body::new(64);
        let first = body.next().to_vec();
        assert_ne!(first, body.next());
        assert!(Body::new(0).next().is_empty());
    }

    #[test]
    fn a_wrong_answer_does_not_count() {
        let mut completion = Completion::default();
        assert!(check(&completion, b"").is_err(), "cancelled");
        completion.status = Status::Ok;
        assert!(check(&completion, b"").is_ok());
        assert!(check(&completion, b"x").is_err());
    }
}
