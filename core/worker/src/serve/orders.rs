//! What the node tells a worker to do: lanes and modules that come and go, bans, the sandbox.

use std::io;

use microfaas_control::{LaneSpec, Load, ToNode, ToWorker};

use super::{Worker, standing};
use crate::backlog::Backlog;
use crate::control::add_lane;
use crate::descriptor::Received;
use crate::lanes::NODE;
use crate::modules::{Modules, Standing};
use crate::schedule::Scheduler;

impl Worker {
    /// Does what one message says. True for `serve`.
    pub(super) fn obey(&mut self, message: ToWorker, fds: Vec<Received>) -> io::Result<bool> {
        self.stirred = true;
        match message {
            ToWorker::Start(_) => return Err(io::Error::other("the node sent `start` twice")),
            ToWorker::AddLane(spec) => {
                let lane = spec.lane;
                let answer = match self.add_lane(&spec, fds) {
                    Ok(()) => ToNode::LaneAdded { lane },
                    // The node's own.
                    Err(error) if lane as usize == NODE => return Err(error),
                    Err(error) => ToNode::LaneRefused { lane, reason: error.to_string() },
                };
                self.control.say(&answer)?;
            }
            ToWorker::RemoveLane { lane } => {
                if lane as usize == NODE {
                    return Err(io::Error::other("the node takes its own lane away"));
                }
                self.cut(lane as usize);
                self.control.say(&ToNode::LaneRemoved { lane })?;
            }
            ToWorker::Bans { functions } => {
                self.modules.ban(functions);
                self.refuse_waiting()?;
                self.control.say(&ToNode::BansKept)?;
            }
            ToWorker::Ping => self.control.say(&ToNode::Pong)?,
            ToWorker::Retire => {
                self.is_retiring = true;
                self.control.say(&ToNode::Retiring)?;
            }
            ToWorker::Load(request) => self.receive_module(&request, fds)?,
            ToWorker::Shelve { modules } => {
                let answer = self.modules.shelve(modules);
                self.control.say(&answer)?;
            }
            ToWorker::Unload(request) => {
                let answer = self.modules.unload(request, &self.lanes);
                self.control.say(&answer)?;
                self.refuse_waiting()?;
                self.sweep()?;
            }
            ToWorker::Seal => {
                self.sandbox.seal(&self.control, &self.lanes, fds)?;
                self.control.say(&ToNode::Sealed)?;
            }
            ToWorker::Serve => {
                self.control.say(&ToNode::Ready { sandbox: self.sandbox.report()?.clone() })?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn add_lane(&mut self, spec: &LaneSpec, fds: Vec<Received>) -> io::Result<()> {
        let vacant = self.lanes.vacant(spec.lane)?;
        *vacant = Some(add_lane(spec, fds)?);
        self.backlog.add_lane(spec.lane as usize, spec.geometry.slots(), self.scheduler.contexts());
        Ok(())
    }

    /// Drops what a lane's host still wants, and the lane. Nothing of its memory is touched afterwards.
    pub(super) fn cut(&mut self, number: usize) {
        self.scheduler.drop_lane(number, &mut self.modules);
        self.backlog.remove_lane(number);
        self.stirred = true;
        drop(self.lanes.remove(number));
    }

    /// A host has submitted what cannot be a submission. Its lane goes, the others' calls are not touched by it.
    #[cold]
    pub(super) fn fault(&mut self, number: usize, reason: &str) -> io::Result<()> {
        if number == NODE {
            return Err(io::Error::other(reason));
        }
        self.cut(number);
        let lane = u32::try_from(number).unwrap_or(u32::MAX);
        self.control.say(&ToNode::LaneFault { lane, reason: reason.to_owned() })
    }

    /// Loads a module; the worker is sealed in before the first code of one runs.
    pub(super) fn receive_module(&mut self, request: &Load, fds: Vec<Received>) -> io::Result<()> {
        self.sandbox.report()?;
        let count = fds.len();
        let Ok([fd]) = <[Received; 1]>::try_from(fds) else {
            let reason = format!("{count} descriptors with a module, not 1");
            return self.control.say(&ToNode::LoadFailed { module: request.module, reason });
        };
        self.evict(Some(request))?;
        let init_bytes = usize::try_from(self.settings.init_bytes).unwrap_or(usize::MAX);
        let clock = *self.scheduler.clock();
        let (answer, after) = self.modules.load(request, fd, self.scheduler.lend(), init_bytes, &clock);
        let called = request.functions.iter().map(|spec| spec.function);
        let called = called.into_iter().find(|function| self.backlog.has_calls_of(*function));
        if let (Err(_), Some(function)) = (&after, called) {
            // Whoever calls it next is not to lose a worker by it.
            self.control.say(&ToNode::Fault { function, is_unsafe: true })?;
        }
        self.control.say(&answer)?;
        self.refuse_waiting()?;
        after.map_err(|error| io::Error::other(format!("memory safety is broken: {error}")))
    }

    /// Drops modules that are on their way out and that nothing wants any more, and those that there is no room for.
    pub(super) fn sweep(&mut self) -> io::Result<()> {
        let is_in_use = |function| is_in_use(function, &self.scheduler, &self.backlog);
        while let Some(gone) = self.modules.sweep(&self.lanes, is_in_use) {
            self.stirred = true;
            self.control.say(&gone)?;
        }
        self.evict(None)
    }

    /// Unloads what there is no room for: beside a module that is to be loaded, where one is given.
    pub(super) fn evict(&mut self, request: Option<&Load>) -> io::Result<()> {
        let is_in_use = |function| is_in_use(function, &self.scheduler, &self.backlog);
        while let Some(gone) = self.modules.evict(request, is_in_use) {
            self.control.say(&gone)?;
        }
        Ok(())
    }

    /// Answers calls at once that wait and cannot be run any more: the worker may be about to end.
    pub(super) fn refuse_waiting(&mut self) -> io::Result<()> {
        let is_over = |modules: &Modules, index, function| {
            matches!(standing(modules, index, function), Standing::Refused | Standing::Banned)
        };
        while let Some((index, submission)) =
            self.backlog.take_out(|index, function| is_over(&self.modules, index, function))
        {
            self.take(index, &submission)?;
        }
        Ok(())
    }
}

/// Whether a call of this function is suspended or waits.
fn is_in_use(function: u32, scheduler: &Scheduler, backlog: &Backlog) -> bool {
    scheduler.has_call_of(function) || backlog.has_calls_of(function)
}
