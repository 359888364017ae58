//! Who has the core: starts calls, suspends those that pass their slice, resumes them, ends those that have spent their budget. Whose turn it is, `serve` says.
//!
//! | what a call has used | what happens |
//! | --- | --- |
//! | a slice, and nobody waits | it goes on, with a slice of [`COARSE_NS`]; who comes meanwhile pokes the worker, which ends the slice. With a host that may not poke: with a slice twice as long, up to that |
//! | a slice, and others wait | it waits for its function's next turn; its next slice is a quantum again |
//! | all but a tenth of its budget, a millisecond at most; or all but that of its time to its deadline | safe points end it from now on, by unwinding |
//! | its budget, or its deadline has passed | it is ended: answered, its stack dropped, instance and arena reset |
//!
//! What counts is CPU time. Reading it is a system call, so a call that is over soon (within its quantum, or little more) is measured by the cycle counter alone, and one
//! that is not by both: time in which the worker did not have the core is taken off. What it takes to put a suspended call's state aside and to bring it back is the call's, too. A call that has the core and burns nothing (blocked in the kernel) is
//! ended when it has been in its slices for four budgets, a tenth of a second, and `SHARE_MIN` times what it has used: others may have most of the core.
#![expect(unsafe_code, reason = "starts and resumes calls")]

use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use microfaas_control::Start;
use microfaas_lane::Status;
use microfaas_lane::worker::{Completion, Submission};
use microfaas_metrics::{Record, Recorder, Times};
use microfaas_preempt::contain::Fault;
use microfaas_preempt::timer::{self, Reading};
use microfaas_preempt::{Ending, Exit, Suspended, poke};
use microfaas_sys::clock::{CycleClock, cycles};

use crate::arena::ARENA_BYTES_MIN;
use crate::context::Context;
use crate::control::Lane;
use crate::execute::{ended, refuse, returned};
use crate::function::{COARSE_NS, Function};
use crate::host_calls::State;
use crate::instance::Instance;
use crate::lanes::{Lanes, NODE};
use crate::modules::Modules;
use crate::sandbox::{aborts, betrays};

/// How often the clock's base is taken anew from the kernel, so that the cycle rate's error cannot add up.
const CLOCK_CYCLES_MAX: u64 = 4_000_000_000;

/// A call that has had so little of the time in its slices (a part of so many) was blocked, and not without the core: three busy processes beside a worker leave it a quarter.
const SHARE_MIN: u64 = 32;
/// A call that comes back so long after the end of its slice was not interrupted at it, whatever the machine is busy with: machine code of its own has blocked
/// the alarm, or switched it off.
const LATE_NS: u64 = 50_000_000;
/// Resetting so much is in nobody's account: it takes a few microseconds, and reading the time after every call would cost more than a reset mostly does.
const UNCHARGED_BYTES: usize = 64 << 10;
/// Up to so long it is taken by the cycle counter alone what putting a state aside or bringing it back has taken. The copies of most take a microsecond.
const UNREAD_NS: u64 = 100_000;

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

/// What a call is told that ends at a safe point.
const BUDGET_SPENT: &str = "budget spent; ended at a safe point";
const DEADLINE_PASSED: &str = "deadline passed; ended at a safe point";

/// When a slice began. The first of a call has no reading of its CPU time: that is a system call.
#[derive(Debug, Clone, Copy)]
struct Began {
    cycles: u64,
    cpu_ns: Option<u64>,
}

impl Began {
    fn first(cycles: u64) -> Self {
        Self { cycles, cpu_ns: None }
    }
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

    /// A call has come to its end within its first slice, and took long. Returns its CPU time.
    #[cold]
    fn learn(&self, start: u64, slice: u64, function: &mut Function) -> u64 {
        self.mend_alarm(start.saturating_add(slice));
        let (least_ns, most_ns) = self.slice_used_within(Began::first(start));
        if function.has_overrun(least_ns) {
            function.overran_unseen();
        }
        most_ns
    }

    /// Gives a call its next slice: of those whose lane and function are wanted, the one that has waited longest. `find` looks up function and instance by the
    /// function's number.
    pub fn resume_next<'a>(
        &mut self,
        lanes: &mut Lanes,
        is_wanted: impl Fn(usize, u32) -> bool,
        find: impl FnOnce(u32) -> Option<(&'a mut Function, &'a mut Instance)>,
    ) -> After {
        let is_next = |(task, _): &(Task, Suspended)| is_wanted(task.lane, task.submission.function);
        let next = self.suspended.iter().position(is_next);
        let Some((mut task, at)) = next.and_then(|next| self.suspended.remove(next)) else {
            return After::Serve;
        };
        let Some((function, instance)) = find(task.submission.function) else { return After::Serve };
        instance.enter();
        // SAFETY: no call runs, so the state is the worker's.
        let state = unsafe { self.state.as_mut() };
        let began = cycles();
        self.contexts[task.context].bring_back(state, instance);
        self.charge(&mut task, began);
        self.resume(lanes, task, at, function, instance)
    }

    /// Drops the suspended calls of a lane that goes: each is ended as one that has spent its budget is, and not answered.
    pub fn drop_lane(&mut self, lane: usize, modules: &mut Modules) {
        for _ in 0..self.suspended.len() {
            let Some((task, at)) = self.suspended.pop_front() else { return };
            if task.lane != lane {
                self.suspended.push_back((task, at));
                continue;
            }
            let Some((_, instance)) = modules.find(task.submission.function) else { continue };
            instance.enter();
            // SAFETY: no call runs, so the state is the worker's.
            let state = unsafe { self.state.as_mut() };
            self.contexts[task.context].bring_back(state, instance);
            self.clean(&task, instance);
        }
    }

    /// Continues a call whose instance is as it left it.
    fn resume(
        &mut self,
        lanes: &mut Lanes,
        mut task: Task,
        at: Suspended,
        function: &mut Function,
        instance: &mut Instance,
    ) -> After {
        self.tell(&mut task, function);
        let (exit, began) = self.slice(&task, at, function, instance);
        if let Exit::Suspended(at) = exit {
            return self.decide(lanes, task, at, began, function, instance);
        }
        task.used_ns += self.slice_used(began);
        function.was_seen(task.used_ns);
        task.ended = cycles();
        self.finish(lanes, &task, exit, function, instance)
    }

    /// Lets a call that was started run for a slice. Returns when that began, too.
    fn slice(
        &mut self,
        task: &Task,
        at: Suspended,
        function: &Function,
        instance: &mut Instance,
    ) -> (Exit, Began) {
        let (budget_ns, deadline_ns) = match task.told {
            Some(_) => (function.budget_ns, task.submission.deadline_ns),
            None => (function.soft_ns, task.soft_deadline_ns),
        };
        let mut slice_ns = task.slice_ns.min(budget_ns.saturating_sub(task.used_ns));
        if deadline_ns != u64::MAX {
            slice_ns = slice_ns.min(deadline_ns.saturating_sub(self.ns_at(cycles())));
        }
        // SAFETY: no call runs, so the state is the worker's.
        let state = unsafe { self.state.as_mut() };
        state.runtime.pending.store(u32::from(task.told.is_some()), Ordering::Relaxed);
        let start = timer::sync();
        let limit = start.cycles.saturating_add(self.clock.to_cycles(slice_ns));
        poke::limit(limit);
        // SAFETY: suspended on this context, its instance is as it left it.
        let exit = unsafe { self.contexts[task.context].resume(self.state, instance, at) };
        self.spend(start.cycles);
        if !matches!(exit, Exit::Suspended(_)) {
            self.mend_alarm(limit);
        }
        (exit, Began { cycles: start.cycles, cpu_ns: Some(start.cpu_ns) })
    }

    /// Where a call is about to be ended, safe points end it from its next slice on. True where it has just come to that by its deadline.
    fn tell(&mut self, task: &mut Task, function: &Function) -> bool {
        if task.told.is_some() {
            return false;
        }
        if task.used_ns >= function.soft_ns {
            task.told = Some(BUDGET_SPENT);
        } else if self.is_past(task.soft_deadline_ns) {
            task.told = Some(DEADLINE_PASSED);
            return true;
        }
        false
    }

    /// A slice is over that began then.
    fn spend(&mut self, start: u64) {
        self.slice_spent = cycles().saturating_sub(start);
        self.spent += self.slice_spent;
    }

    /// A call with this limit has come back by itself.
    fn mend_alarm(&self, limit: u64) {
        if cycles().saturating_sub(limit) > self.late_cycles {
            timer::mend();
        }
    }

    /// Charges a call for what the worker has done for it since then: its state was put aside, or brought back, while it had the core otherwise.
    fn charge(&mut self, task: &mut Task, began: u64) {
        let took = cycles().saturating_sub(began);
        self.spent += took;
        let took_ns = self.clock.to_ns(took);
        // Mostly the worker was without the core meanwhile.
        let is_long = took_ns > UNREAD_NS;
        task.used_ns += if is_long { self.slice_used(Began::first(began)) } else { took_ns };
    }

    /// CPU time in a slice that is over now, at least; takes a new reading.
    fn slice_used(&self, began: Began) -> u64 {
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

    /// A call has come to the end of a slice: see the table of the module. While nobody else waits it goes on right here, for any number of slices.
    #[cold]
    fn decide(
        &mut self,
        lanes: &mut Lanes,
        mut task: Task,
        mut at: Suspended,
        mut began: Began,
        function: &mut Function,
        instance: &mut Instance,
    ) -> After {
        loop {
            task.slices_ns += self.clock.to_ns(cycles().wrapping_sub(began.cycles));
            task.used_ns += self.slice_used(began);
            // A slice may have passed while others had the core, or interruptions took it.
            if task.used_ns >= function.budget_ns || function.has_overrun(task.used_ns) {
                function.overran();
            }
            if let Some(reason) = self.is_over(&task, function) {
                let lane = &mut lanes[task.lane];
                let done = refuse(lane, &task.submission, Status::Timeout, reason, task.used_ns);
                task.ended = cycles();
                self.count(&task, &done);
                self.clean(&task, instance);
                return After::Serve;
            }
            // By its next turn its deadline may have passed.
            let is_last_chance = self.tell(&mut task, function);
            let has_room = self.has_room();
            let is_ready = |lane: &Lane| has_room && lane.end.is_ready();
            let has_rival = has_room && lanes.has_rival || !self.suspended.is_empty();
            let others_wait = has_rival || lanes.control_waits() || lanes.iter().any(is_ready);
            if others_wait && !is_last_chance {
                break;
            }
            let longest_ns = COARSE_NS.max(function.quantum_ns);
            task.slice_ns = match lanes.iter().any(|lane| lane.copies) {
                _ if others_wait => function.quantum_ns,
                // Hosts that may not signal the worker wait for the end of a slice.
                true => task.slice_ns.saturating_mul(2).min(longest_ns),
                false => longest_ns,
            };
            let is_long = task.slice_ns > function.quantum_ns;
            if is_long && !engage(lanes, has_room) {
                disengage(lanes);
                break;
            }
            let slice_spent = std::mem::take(&mut self.slice_spent);
            if !others_wait {
                // It was nobody else's.
                self.spent -= slice_spent;
            }
            let (exit, start) = self.slice(&task, at, function, instance);
            if is_long {
                disengage(lanes);
            }
            let Exit::Suspended(next) = exit else {
                task.used_ns += self.slice_used(start);
                function.was_seen(task.used_ns);
                task.ended = cycles();
                return self.finish(lanes, &task, exit, function, instance);
            };
            (at, began) = (next, start);
        }
        task.slice_ns = function.quantum_ns;
        // SAFETY: no call runs, so the state is the worker's.
        let state = unsafe { self.state.as_mut() };
        let began = cycles();
        self.contexts[task.context].put_aside(state, instance);
        self.charge(&mut task, began);
        self.suspended.push_back((task, at));
        After::Serve
    }

    /// Why a call gets no further slice, if it does not.
    fn is_over(&mut self, task: &Task, function: &Function) -> Option<&'static str> {
        let blocked_ns = function.budget_ns.saturating_mul(4).saturating_add(100_000_000);
        let blocked_ns = blocked_ns.saturating_add(task.used_ns.saturating_mul(SHARE_MIN));
        if task.used_ns >= function.budget_ns {
            Some("budget spent")
        } else if self.is_past(task.submission.deadline_ns) {
            Some("deadline passed while it ran")
        } else if task.slices_ns > blocked_ns {
            Some("blocked without using its budget")
        } else {
            None
        }
    }

    /// Answers a call that is over, and makes everything that it touched as it was before.
    #[inline]
    fn finish(
        &mut self,
        lanes: &mut Lanes,
        task: &Task,
        exit: Exit,
        function: &Function,
        instance: &mut Instance,
    ) -> After {
        let lane = &mut lanes[task.lane];
        match exit {
            Exit::Returned(outcome) => {
                // SAFETY: no call runs, so the state is the worker's.
                let message = unsafe { self.state.as_ref() }.message();
                let response = self.contexts[task.context].response();
                let told = task.told.unwrap_or_default();
                // What unwinding has left of a lasting state (a poisoned lock, half a change) is not for the next call.
                let keeps_state = function.stateful && !response.told_to_end;
                let done = returned(lane, &task.submission, response, outcome, [message, told], task.used_ns);
                self.count(task, &done);
                if keeps_state {
                    // SAFETY: the call is over. What it has left in statics it has allocated from the instance's own heap.
                    unsafe { self.contexts[task.context].reset() };
                    self.free.push(task.context);
                    return After::Serve;
                }
            }
            Exit::Ended(ending) => {
                let told_to_end = self.contexts[task.context].response().told_to_end;
                if let (Ending::Fault(fault), Some(told), true) = (ending, task.told, told_to_end)
                    && aborts(fault)
                {
                    // The unwinding of a safe point has come to a frame that nothing may unwind through, as of a callback from C: no fault of the function's.
                    let done = refuse(lane, &task.submission, Status::Timeout, told, task.used_ns);
                    self.count(task, &done);
                    self.clean(task, instance);
                    return After::Serve;
                }
                let heap_bytes = instance.own_heap_bytes().unwrap_or(self.arena_bytes);
                let done = ended(lane, &task.submission, ending, heap_bytes, task.used_ns);
                self.count(task, &done);
                self.clean(task, instance);
                let tell = (task.lane != NODE).then_some(task.submission.function);
                return match (ending, tell) {
                    (Ending::Fault(fault), tell) if betrays(fault) => After::Retire { fault, tell },
                    (Ending::Fault(_), Some(function)) => After::Tell(function),
                    _ => After::Serve,
                };
            }
            Exit::Suspended(_) => {}
        }
        self.clean(task, instance);
        After::Serve
    }

    /// Counts a call that has run. After its completion, which does not wait for it.
    #[inline]
    fn count(&self, task: &Task, done: &Completion) {
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

    #[inline]
    fn clean(&mut self, task: &Task, instance: &mut Instance) {
        let context = &mut self.contexts[task.context];
        let began = (instance.reset_bytes() + context.reset_bytes() > UNCHARGED_BYTES).then(cycles);
        // SAFETY: the call is over or given up; no other call of the instance runs.
        unsafe { instance.reset() };
        // SAFETY: as above.
        unsafe { context.reset() };
        self.free.push(task.context);
        if let Some(began) = began {
            self.spent += cycles().saturating_sub(began);
        }
    }
}

/// Asks every host to poke: a slice begins that is longer than a quantum. False where something has come by now: from the node, or a submission that could be
/// started. In this order: whoever sees the announcement may poke at once, and whoever does not is seen by the look after it (`microfaas_lane::doorbell`).
fn engage(lanes: &Lanes, has_room: bool) -> bool {
    poke::listen();
    let engage =
        |lane: &Lane| lane.end.worker_words().worker_epoch.engage(|| has_room && lane.end.is_ready());
    lanes.iter().all(engage) && !lanes.control_waits()
}

/// The slice is over, or was not begun.
fn disengage(lanes: &Lanes) {
    for lane in lanes.iter() {
        lane.end.worker_words().worker_epoch.wake();
    }
    poke::ignore();
}
