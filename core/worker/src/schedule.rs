//! Who has the core: starts calls, suspends those that pass their slice, resumes them, ends those that have spent their budget. Whose turn it is, `serve` says.
//!
//! | what a call has used | what happens |
//! | --- | --- |
//! | a slice, and nobody waits | it goes on, with a slice of [`COARSE_NS`](crate::function::COARSE_NS); who comes meanwhile pokes the worker, which ends the slice. With a host that may not poke: with a slice twice as long, up to that |
//! | a slice, and others wait | it waits for its function's next turn; its next slice is a quantum again |
//! | all but a tenth of its budget, a millisecond at most; or all but that of its time to its deadline | safe points end it from now on, by unwinding |
//! | its budget, or its deadline has passed | it is ended: answered, its stack dropped, instance and arena reset |
//!
//! What counts is CPU time. Reading it is a system call, so a call that is over soon (within its quantum, or little more) is measured by the cycle counter alone, and one
//! that is not by both: time in which the worker did not have the core is taken off. What it takes to put a suspended call's state aside and to bring it back is the call's, too. A call that has the core and burns nothing (blocked in the kernel) is
//! ended when it has been in its slices for four budgets, a tenth of a second, and 32 times what it has used: others may have most of the core.
#![expect(unsafe_code, reason = "starts calls")]

mod account;
mod end;
mod slices;

use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use microfaas_control::Start;
use microfaas_lane::Status;
use microfaas_lane::worker::Submission;
use microfaas_metrics::Recorder;
use microfaas_preempt::contain::Fault;
use microfaas_preempt::{Exit, Suspended, timer};
use microfaas_sys::clock::{CycleClock, cycles};

use crate::arena::ARENA_BYTES_MIN;
use crate::context::Context;
use crate::execute::refuse;
use crate::function::Function;
use crate::host_calls::State;
use crate::instance::Instance;
use crate::lanes::Lanes;
use account::Began;

/// How often the clock's base is taken anew from the kernel, so that the cycle rate's error cannot add up.
const CLOCK_CYCLES_MAX: u64 = 4_000_000_000;
/// A call that comes back so long after the end of its slice was not interrupted at it, whatever the machine is busy with: machine code of its own has blocked
/// the alarm, or switched it off.
const LATE_NS: u64 = 50_000_000;

/// What the worker has to do after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum After {
    /// Go on.
    Serve,
    /// Go on; a call of this function has faulted that came by a lane where the node does not see it.
    Tell(u32),
    /// Memory can no longer be trusted: stop serving, be replaced.
    Retire {
        /// What the call did.
        fault: Fault,
        /// As for [`Tell`](Self::Tell); `None` where the node sees it.
        tell: Option<u32>,
    },
}

/// A call that has been started and is not over.
#[derive(Debug)]
struct Task {
    context: usize,
    lane: usize,
    submission: Submission,
    /// CPU time in the slices before this one.
    used_ns: u64,
    /// Time in the slices before this one, the worker's or not.
    slices_ns: u64,
    /// Length of its next slice.
    slice_ns: u64,
    /// When it was started and when it was over, in cycles.
    started: u64,
    ended: u64,
    /// When safe points end it, a little before its deadline.
    soft_deadline_ns: u64,
    /// Safe points end it, for this reason.
    told: Option<&'static str>,
}

/// See the module.
#[derive(Debug)]
pub struct Scheduler {
    contexts: Vec<Context>,
    /// For modules that are loaded, also while calls are suspended in all the others. Its arena is not used.
    loading: Context,
    free: Vec<usize>,
    suspended: VecDeque<(Task, Suspended)>,
    state: NonNull<State>,
    clock: CycleClock,
    recorder: Recorder,
    arena_bytes: u64,
    /// See [`LATE_NS`].
    late_cycles: u64,
    /// See [`spent`](Self::spent).
    spent: u64,
    /// What the latest slice of a call that was suspended has added to that.
    slice_spent: u64,
}

impl Scheduler {
    /// Maps the contexts. What the calls use is counted by `recorder`.
    ///
    /// # Errors
    /// Where a size is out of range or the kernel refuses memory.
    pub fn new(settings: &Start, clock: CycleClock, recorder: Recorder) -> io::Result<Self> {
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let count = settings.suspended_max as usize + 1;
        timer::sync();
        let make = |_| Context::new(size(settings.stack_bytes), size(settings.arena_bytes));
        Ok(Self {
            contexts: (0..count).map(make).collect::<io::Result<_>>()?,
            loading: Context::new(size(settings.stack_bytes), ARENA_BYTES_MIN)?,
            free: (0..count).rev().collect(),
            suspended: VecDeque::with_capacity(count),
            state: State::install(),
            clock,
            recorder,
            arena_bytes: settings.arena_bytes,
            late_cycles: clock.to_cycles(LATE_NS),
            spent: 0,
            slice_spent: 0,
        })
    }

    /// The clock that it measures with.
    #[must_use]
    pub fn clock(&self) -> &CycleClock {
        &self.clock
    }

    /// Whether another call can be started.
    #[inline]
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Contexts that no call has.
    #[inline]
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Contexts in all.
    #[inline]
    #[must_use]
    pub fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// How many calls are suspended.
    #[inline]
    #[must_use]
    pub fn suspended(&self) -> usize {
        self.suspended.len()
    }

    /// Lane and function of the call that was suspended last.
    #[must_use]
    pub fn last_suspended(&self) -> Option<(usize, u32)> {
        self.suspended.back().map(|(task, _)| (task.lane, task.submission.function))
    }

    /// Cycles that calls have had the core for, so far, and what it took to keep their state and to reset it where that is much; without slices at whose end nobody else
    /// wanted it.
    #[inline]
    #[must_use]
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// A context of its own and the host calls' state, for loading a module. No call may run.
    pub fn lend(&mut self) -> (&mut Context, NonNull<State>) {
        (&mut self.loading, self.state)
    }

    /// Whether a call of this function is suspended.
    #[must_use]
    pub fn has_call_of(&self, function: u32) -> bool {
        self.suspended.iter().any(|(task, _)| task.submission.function == function)
    }

    /// Whether a deadline has passed.
    fn is_past(&mut self, deadline_ns: u64) -> bool {
        deadline_ns != u64::MAX && self.ns_at(cycles()) > deadline_ns
    }

    #[inline]
    fn ns_at(&mut self, now: u64) -> u64 {
        if self.clock.is_older_than(now, CLOCK_CYCLES_MAX) {
            self.clock.rebase();
        }
        self.clock.at(now)
    }

    /// Runs a claimed call up to its end or the end of its first slice, unless its deadline has passed. There must be [room](Self::has_room).
    ///
    /// # Cost
    /// About 60 ns beside the function: stack switch, readings of the cycle counter, reset of instance and arena.
    #[inline]
    pub fn start(
        &mut self,
        lanes: &mut Lanes,
        lane: usize,
        submission: &Submission,
        function: &mut Function,
        instance: &mut Instance,
    ) -> After {
        let start = cycles();
        function.used = start;
        let (mut slice, mut soft_deadline_ns) = (function.first_slice(), u64::MAX);
        if submission.deadline_ns != u64::MAX {
            let Some(rest) = submission.deadline_ns.checked_sub(self.ns_at(start)) else {
                let reason = "deadline passed before the call started";
                let done = refuse(&mut lanes[lane], submission, Status::Expired, reason, 0);
                self.count_refused(submission, &done);
                return After::Serve;
            };
            // Where little is left, a tenth of that is for unwinding, too.
            let grace = function.grace_ns().min(rest / 10);
            soft_deadline_ns = submission.deadline_ns - grace;
            // Turning nanoseconds into cycles is dear, and most deadlines are far.
            if rest - grace < function.first_slice_ns_max {
                slice = slice.min(self.clock.to_cycles(rest - grace));
            }
        }
        let Some(context) = self.free.pop() else { return After::Serve };
        let frame = &mut self.contexts[context];
        if !frame.prepare(&lanes[lane], submission) {
            self.free.push(context);
            let reason = "no memory for a copy of the request";
            let done = refuse(&mut lanes[lane], submission, Status::Oom, reason, 0);
            self.count_refused(submission, &done);
            return After::Serve;
        }
        instance.enter();
        // SAFETY: no call runs, so the state is the worker's.
        let state = unsafe { self.state.as_mut() };
        state.runtime.pending.store(0, Ordering::Relaxed);
        timer::limit(start.saturating_add(slice));
        // SAFETY: the entry is the module's, its instance is clean; `finish` and `decide` reset both when the call is over.
        let exit = unsafe { frame.start(self.state, instance, function.entry) };
        let (used_ns, slices_ns, slice_ns) = (0, 0, function.quantum_ns);
        let (submission, started, ended, told) = (*submission, start, start, None);
        let mut task = Task {
            context,
            lane,
            submission,
            used_ns,
            slices_ns,
            slice_ns,
            started,
            ended,
            soft_deadline_ns,
            told,
        };
        if let Exit::Suspended(at) = exit {
            self.spend(start);
            return self.decide(lanes, task, at, Began::first(start), function, instance);
        }
        task.ended = cycles();
        let took = task.ended.saturating_sub(start);
        self.spent += took;
        if function.is_short(took) {
            function.was_short();
            task.used_ns = self.clock.to_ns(took);
        } else {
            task.used_ns = self.learn(start, slice, function);
        }
        self.finish(lanes, &task, exit, function, instance)
    }
}
