//! A call's slices after its first: it goes on while nobody else waits, and else when it is its turn, up to its end, its budget or its deadline.
#![expect(unsafe_code, reason = "resumes calls")]

use std::sync::atomic::Ordering;

use microfaas_lane::Status;
use microfaas_preempt::{Exit, Suspended, poke, timer};
use microfaas_sys::clock::cycles;

use super::account::Began;
use super::{After, Scheduler, Task};
use crate::control::Lane;
use crate::execute::refuse;
use crate::function::{COARSE_NS, Function};
use crate::instance::Instance;
use crate::lanes::Lanes;

/// A call that has had so little of the time in its slices (a part of so many) was blocked, and not without the core: three busy processes beside a worker leave it a quarter.
const SHARE_MIN: u64 = 32;

/// What a call is told that ends at a safe point.
const BUDGET_SPENT: &str = "budget spent; ended at a safe point";
const DEADLINE_PASSED: &str = "deadline passed; ended at a safe point";

impl Scheduler {
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

    /// A call has come to the end of a slice: see the table of the module. While nobody else waits it goes on right here, for any number of slices.
    #[cold]
    pub(super) fn decide(
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
