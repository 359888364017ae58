//! The end of a call: its answer, and everything that it touched is as it was before.
#![expect(unsafe_code, reason = "resets what calls have left")]

use microfaas_lane::Status;
use microfaas_preempt::contain::Fault;
use microfaas_preempt::{Ending, Exit};
use microfaas_sys::clock::cycles;

use super::{After, Scheduler, Task};
use crate::execute::{ended, refuse, returned};
use crate::function::Function;
use crate::instance::Instance;
use crate::lanes::{Lanes, NODE};
use crate::modules::Modules;
use crate::sandbox::betrays;

/// Resetting so much is in nobody's account: it takes a few microseconds, and reading the time after every call would cost more than a reset mostly does.
const UNCHARGED_BYTES: usize = 64 << 10;

impl Scheduler {
    /// Answers a call that is over, and makes everything that it touched as it was before.
    #[inline]
    pub(super) fn finish(
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
                if let (Ending::Fault(Fault::Abort), Some(told), true) = (ending, task.told, told_to_end) {
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

    #[inline]
    pub(super) fn clean(&mut self, task: &Task, instance: &mut Instance) {
        let context = &mut self.contexts[task.context];
        let began = (instance.reset_bytes() + context.reset_bytes() > UNCHARGED_BYTES).then(cycles);
        // SAFETY: the call is over or given up; no other call of the instance runs.
        unsafe { instance.reset() };
        // SAFETY: as above.
        unsafe { context.reset() };
        self.free.push(task.context);
        if let Some(began) = began {
            self.contexts[task.context].give_back();
            self.spent += cycles().saturating_sub(began);
        }
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
}
