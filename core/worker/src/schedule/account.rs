//! What calls use of the core: measured, charged and counted.
//!
//! A call that is over soon is measured by the cycle counter alone, any other by its CPU time, which takes a system call to read. What it takes to put a call's state aside
//! and to bring it back is the call's, too.

use microfaas_lane::Status;
use microfaas_lane::worker::{Completion, Submission};
use microfaas_metrics::{Record, Times};
use microfaas_preempt::timer::{self, Reading};
use microfaas_sys::clock::cycles;

use super::{Scheduler, Task};
use crate::function::Function;

/// Up to so long it is taken by the cycle counter alone what putting a state aside or bringing it back has taken. The copies of most take a microsecond.
const UNREAD_NS: u64 = 100_000;

/// When a slice began. The first of a call has no reading of its CPU time: that is a system call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    pub(super) cycles: u64,
    pub(super) cpu_ns: Option<u64>,
}

impl Began {
    #[inline]
    pub(super) fn first(cycles: u64) -> Self {
        Self { cycles, cpu_ns: None }
    }
}

impl Scheduler {
    /// A slice is over that began then.
    #[inline]
    pub(super) fn spend(&mut self, start: u64) {
        self.slice_spent = cycles().saturating_sub(start);
        self.spent += self.slice_spent;
    }

    /// A call has come to its end within its first slice, and took long. Returns its CPU time.
    #[cold]
    pub(super) fn learn(&self, start: u64, slice: u64, function: &mut Function) -> u64 {
        self.mend_alarm(start.saturating_add(slice));
        let (least_ns, most_ns) = self.slice_used_within(Began::first(start));
        if function.has_overrun(least_ns) {
            function.overran_unseen();
        }
        most_ns
    }

    /// Charges a call for what the worker has done for it since then: its state was put aside, or brought back, while it had the core otherwise.
    pub(super) fn charge(&mut self, task: &mut Task, began: u64) {
        let took = cycles().saturating_sub(began);
        self.spent += took;
        let took_ns = self.clock.to_ns(took);
        // Mostly the worker was without the core meanwhile.
        let is_long = took_ns > UNREAD_NS;
        task.used_ns += if is_long { self.slice_used(Began::first(began)) } else { took_ns };
    }

    /// CPU time in a slice that is over now, at least; takes a new reading.
    pub(super) fn slice_used(&self, began: Began) -> u64 {
        self.slice_used_within(began).0
    }

    /// CPU time in a slice that is over now, at least and at most: some of what was lost since the last reading before it may have been lost before it began. Takes a new
    /// reading.
    fn slice_used_within(&self, began: Began) -> (u64, u64) {
        let before = timer::sync_before(began.cycles);
        let now = timer::sync();
        if let Some(cpu_ns) = began.cpu_ns {
            let used_ns = now.cpu_ns.saturating_sub(cpu_ns);
            return (used_ns, used_ns);
        }
        let took_ns = self.clock.to_ns(now.cycles.wrapping_sub(began.cycles));
        let Some(before) = before else { return (took_ns, took_ns) };
        let cpu_ns = now.cpu_ns.saturating_sub(before.cpu_ns);
        let lost_ns = self.between(before, now).saturating_sub(cpu_ns);
        (took_ns.saturating_sub(lost_ns), took_ns.min(cpu_ns))
    }

    fn between(&self, from: Reading, to: Reading) -> u64 {
        self.clock.to_ns(to.cycles.wrapping_sub(from.cycles))
    }

    /// A call with this limit has come back by itself.
    pub(super) fn mend_alarm(&self, limit: u64) {
        if cycles().saturating_sub(limit) > self.late_cycles {
            timer::mend();
        }
    }

    /// Counts a call that has run. After its completion, which does not wait for it.
    #[inline]
    pub(super) fn count(&self, task: &Task, done: &Completion) {
        let submission = &task.submission;
        // Whatever the host says; one that says nothing has submitted it at the start.
        let submitted = match submission.submitted_cycles {
            0 => task.started,
            cycles => cycles.min(task.started),
        };
        self.recorder.record(&Record {
            function: submission.function,
            status: done.status,
            request_bytes: u64::from(submission.body_len) + u64::from(submission.meta_len),
            response_bytes: u64::from(done.body_len) + u64::from(done.meta_len),
            cpu_ns: done.cpu_ns,
            times: Some(Times {
                queue_ns: self.clock.to_ns(task.started - submitted),
                total_ns: self.clock.to_ns(task.ended.saturating_sub(submitted)),
            }),
        });
    }

    /// Counts a call that was answered without having run.
    pub fn count_refused(&self, submission: &Submission, done: &Completion) {
        // What hosts make up gets no block of its own.
        let function = if done.status == Status::NotFound { u32::MAX } else { submission.function };
        let status = done.status;
        let record = Record { function, status, request_bytes: 0, response_bytes: 0, cpu_ns: 0, times: None };
        self.recorder.record(&record);
    }
}
