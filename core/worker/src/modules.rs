//! What is loaded: the dispatch table, the instances behind it, and modules that come and go while the worker serves.
//!
//! A module that is to go does so when nothing can want it any more: no call of it is suspended or waits, and every submission that the rings held when the
//! worker heard of it has been taken. What carries one of its numbers afterwards has come late, from a host that had looked the number up before,
//! and goes to the module's successor. Then its instance, the heap of its `init` and the library are dropped. The system's loader may keep a library
//! all the same (a thread-local destructor pins it, for one); what stays is looked up and reported, so that the node can replace a worker
//! in which too much has stayed.

use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use microfaas_control::{Load, ToNode, Unload};
use microfaas_lane::worker::Submission;
use microfaas_sys::clock::CycleClock;

use crate::context::Context;
use crate::function::{Function, Target};
use crate::host_calls::State;
use crate::instance::Instance;
use crate::kept::none_is_current;
use crate::lanes::Lanes;
use crate::loader::{LoadError, load};

/// Longest way from a number that is not in use any more to the one that is in its place. A worker that was told of every change knows each at one step.
const STEPS_MAX: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct Modules {
    targets: Vec<Target>,
    /// By the number in [`Function::instance`]; one that is gone leaves its place to the next.
    instances: Vec<Option<Instance>>,
    loaded: Vec<Loaded>,
    leaving: Vec<Leaving>,
    /// Loads that were tried.
    loads: u32,
}

/// What is to be done with a call of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can be started.
    Ready,
    /// It waits for a suspended one of a function that keeps its state.
    Held,
    /// It goes to the function's [successor](Modules::successor).
    Moved,
    /// The function's module was refused.
    Refused,
    /// The function is banned.
    Banned,
    /// There is no such function.
    Unknown,
}

/// A module that can be called.
#[derive(Debug)]
struct Loaded {
    /// Its number in the node.
    number: u32,
    instance: usize,
    functions: Vec<u32>,
}

/// A module on its way out.
#[derive(Debug)]
struct Leaving {
    module: Loaded,
    successors: Vec<(u32, u32)>,
    /// Lanes, and the position in their rings up to which submissions may be meant for it.
    rings: Vec<(usize, u64)>,
}

impl Modules {
    /// Loads a module and runs its `init`. Returns what to tell the node, and whether the worker may go on: not where `init` broke memory safety.
    pub fn load(
        &mut self,
        request: &Load,
        fd: OwnedFd,
        (context, state): (&mut Context, NonNull<State>),
        init_bytes: usize,
        clock: &CycleClock,
    ) -> (ToNode, Result<(), LoadError>) {
        let module = request.module;
        // What `init` writes to is no heap of a call.
        none_is_current();
        self.loads = self.loads.wrapping_add(1);
        match load(fd, request, self.loads, context, state, init_bytes) {
            Ok(loaded) => {
                let answer = ToNode::Loaded {
                    module,
                    writable_bytes: loaded.instance.writable_bytes() as u64,
                    init_bytes: loaded.instance.kept_bytes() as u64,
                };
                let instance = self.place(loaded.instance);
                let number = u32::try_from(instance).unwrap_or(u32::MAX);
                for ((index, entry), spec) in loaded.entries.into_iter().zip(&request.functions) {
                    let function = Function::new(entry, number, &spec.limits, clock);
                    self.set(index, Target::Loaded(function));
                    for alias in &spec.aliases {
                        self.redirect(*alias, index);
                    }
                }
                let functions = request.functions.iter().map(|spec| spec.function).collect();
                self.loaded.push(Loaded { number: module, instance, functions });
                (answer, Ok(()))
            }
            Err(error) => {
                for spec in &request.functions {
                    self.set(spec.function, Target::Refused);
                }
                let answer = ToNode::LoadFailed { module, reason: error.to_string() };
                (answer, if error.betrays() { Err(error) } else { Ok(()) })
            }
        }
    }

    fn place(&mut self, instance: Instance) -> usize {
        if let Some(free) = self.instances.iter().position(Option::is_none) {
            self.instances[free] = Some(instance);
            return free;
        }
        self.instances.push(Some(instance));
        self.instances.len() - 1
    }

    fn set(&mut self, function: u32, target: Target) {
        let index = function as usize;
        if index >= self.targets.len() {
            self.targets.resize(index + 1, Target::None);
        }
        self.targets[index] = target;
    }

    /// Calls of `from` go to `to`, unless that version is still here; then they do when it is gone.
    fn redirect(&mut self, from: u32, to: u32) {
        for leaving in &mut self.leaving {
            if leaving.module.functions.contains(&from) {
                leaving.successors.retain(|(old, _)| *old != from);
                leaving.successors.push((from, to));
            }
        }
        if self.targets.get(from as usize).and_then(Target::loaded).is_none() {
            self.set(from, Target::Moved(to));
        }
    }

    /// A module is to go. Returns what to tell the node. [`sweep`](Self::sweep) says when it has gone.
    pub fn unload(&mut self, request: Unload, lanes: &Lanes) -> ToNode {
        let Unload { module, successors } = request;
        let found = self.loaded.iter().position(|loaded| loaded.number == module);
        for (from, to) in &successors {
            self.redirect(*from, *to);
        }
        if let Some(found) = found {
            let gone = self.loaded.swap_remove(found);
            let rings =
                (0..lanes.end()).filter_map(|index| Some((index, lanes.get(index)?.end.all_submitted())));
            self.leaving.push(Leaving { module: gone, successors, rings: rings.collect() });
        }
        ToNode::Unloading { module }
    }

    /// Whether a module is on its way out.
    #[inline]
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Drops a module that is on its way out and that nothing wants any more; `is_in_use` says whether a call of a function number is suspended or waits.
    /// Returns what to tell the node.
    #[cold]
    pub fn sweep(&mut self, lanes: &Lanes, is_in_use: impl Fn(u32) -> bool) -> Option<ToNode> {
        let is_done = |leaving: &Leaving| {
            let passed = |(index, position): &(usize, u64)| {
                lanes.get(*index).is_none_or(|lane| lane.end.position() >= *position || !lane.end.is_ready())
            };
            leaving.rings.iter().all(passed)
                && !leaving.module.functions.iter().any(|&function| is_in_use(function))
        };
        let done = self.leaving.iter().position(is_done)?;
        let Leaving { module, successors, .. } = self.leaving.swap_remove(done);
        for function in &module.functions {
            let successor = successors.iter().find(|(from, _)| from == function);
            self.set(*function, successor.map_or(Target::None, |(_, to)| Target::Moved(*to)));
        }
        // A fault handler that looks for its heap finds none.
        none_is_current();
        let stayed = self.instances[module.instance].take().map_or(0, Instance::unload);
        Some(ToNode::Unloaded { module: module.number, stayed_bytes: stayed as u64 })
    }

    /// What is to be done with a call.
    #[inline]
    #[must_use]
    pub fn standing(&self, function: u32) -> Standing {
        match self.targets.get(function as usize) {
            Some(Target::Loaded(function)) if !function.stateful => Standing::Ready,
            Some(Target::Loaded(function)) => self.standing_of_stateful(function),
            Some(Target::Moved(_)) => Standing::Moved,
            Some(Target::Refused) => Standing::Refused,
            Some(Target::Banned(_)) => Standing::Banned,
            Some(Target::None) | None => Standing::Unknown,
        }
    }

    /// As [`standing`](Self::standing), of a function whose ban does not count.
    #[cold]
    #[must_use]
    pub fn standing_unbanned(&self, function: u32) -> Standing {
        let function = self.targets.get(function as usize).and_then(Target::loaded);
        match function {
            Some(function) if function.stateful => self.standing_of_stateful(function),
            Some(_) => Standing::Ready,
            None => Standing::Unknown,
        }
    }

    fn standing_of_stateful(&self, function: &Function) -> Standing {
        let instance = self.instances.get(function.instance as usize).and_then(Option::as_ref);
        if instance.is_some_and(Instance::is_held) { Standing::Held } else { Standing::Ready }
    }

    /// Bans these functions, whose numbers are in order, and no others.
    pub fn ban(&mut self, functions: &[u32]) {
        for (number, target) in (0u32..).zip(&mut self.targets) {
            target.ban(functions.binary_search(&number).is_ok());
        }
    }

    /// A function that is loaded, banned or not, with its instance.
    #[inline]
    pub fn find(&mut self, function: u32) -> Option<(&mut Function, &mut Instance)> {
        let function = self.targets.get_mut(function as usize)?.loaded_mut()?;
        let instance = self.instances.get_mut(function.instance as usize)?.as_mut()?;
        Some((function, instance))
    }

    /// The number that is in the place of one that is not in use any more.
    #[cold]
    #[must_use]
    pub fn successor(&self, submission: &Submission) -> Submission {
        let mut function = submission.function;
        for _ in 0..STEPS_MAX {
            let Some(Target::Moved(to)) = self.targets.get(function as usize) else { break };
            function = *to;
        }
        Submission { function, ..*submission }
    }
}
