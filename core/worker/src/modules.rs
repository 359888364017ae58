//! Which modules there are: the dispatch table, the instances behind it, and modules that come and go while the worker serves.
//!
//! A module is loaded, or cold: then its functions are in the table all the same, and the first call of one has the node send the module
//! ([`Wants`]). Where there is no [`Room`] for it, others are unloaded before and are cold then, the least recently used first; only those that the node does not want
//! to stay, and that no call is in the hands of the worker of. When a function was used is a stamp in its row, which a call touches anyway.
//!
//! A module that is to go does so when nothing can want it any more: no call of it is suspended or waits, and every submission that the rings held when the
//! worker heard of it has been taken. What carries one of its numbers afterwards has come late, from a host that had looked the number up before,
//! and goes to the module's successor. Then its instance, the heap of its `init` and the library are dropped. The system's loader may keep a library
//! all the same (a thread-local destructor pins it, for one); what stays is looked up and reported, so that the node can replace a worker
//! in which too much has stayed. One that has stayed once is not unloaded to make room again.

mod evict;
mod standing;

use std::collections::BTreeMap;
use std::io;
use std::ptr::NonNull;

use microfaas_control::{Load, ToNode, Unload};
use microfaas_sys::clock::{CycleClock, monotonic_ns};

use crate::cold::{Room, Wants};
use crate::context::Context;
use crate::descriptor::Received;
use crate::function::{Function, Target};
use crate::host_calls::State;
use crate::instance::Instance;
use crate::kept::none_is_current;
use crate::lanes::Lanes;
use crate::loader::{self, LoadError, load};

pub use standing::Standing;

/// See the module.
#[derive(Debug, Default)]
pub struct Modules {
    targets: Vec<Target>,
    /// By the number in [`Function::instance`]; one that is gone leaves its place to the next.
    instances: Vec<Option<Instance>>,
    /// By their numbers in the node, without those that are leaving.
    known: BTreeMap<u32, Module>,
    leaving: Vec<Leaving>,
    wants: Wants,
    room: Room,
    /// The limits are passed, since calls are in hand of what could be unloaded.
    crowded: bool,
    /// The module that was loaded last: it has its first calls before it gives way to others.
    newest: Option<u32>,
    /// Functions that are banned, loaded or not, in order.
    banned: Vec<u32>,
    /// Loads that were tried.
    loads: u32,
}

/// A module that can be called.
#[derive(Debug)]
struct Module {
    functions: Vec<u32>,
    /// `None` while it is cold.
    instance: Option<usize>,
    /// It is not unloaded to make room.
    stays: bool,
    /// The system's loader has kept it when it was unloaded: doing so again would make no room, and leave another copy.
    is_pinned: bool,
    /// What it takes when it is loaded; before it was, what its image does.
    bytes: u64,
}

/// A module on its way out.
#[derive(Debug)]
struct Leaving {
    number: u32,
    module: Module,
    successors: Vec<(u32, u32)>,
    /// Lanes, and the position in their rings up to which submissions may be meant for it.
    rings: Vec<(usize, u64)>,
}

impl Modules {
    /// With these limits, of which 0 is none.
    #[must_use]
    pub fn new(bytes_max: u64, count_max: u32) -> Self {
        Self { room: Room::new(bytes_max, count_max as usize), ..Self::default() }
    }

    /// These modules are there, and cold.
    pub fn shelve(&mut self, modules: Vec<Load>) -> ToNode {
        for load in modules {
            for spec in &load.functions {
                self.set(spec.function, Target::Cold(load.module));
                for alias in &spec.aliases {
                    self.redirect(*alias, spec.function);
                }
            }
            self.known.insert(load.module, Module::of(&load, load.image_bytes));
        }
        ToNode::Shelved
    }

    /// Loads a module and runs its `init`. Returns what to tell the node, and whether the worker may go on: not where `init` broke memory safety.
    pub fn load(
        &mut self,
        request: &Load,
        fd: Received,
        lent: (&mut Context, NonNull<State>),
        init_bytes: usize,
        clock: &CycleClock,
    ) -> (ToNode, Result<(), LoadError>) {
        let module = request.module;
        match self.try_load(request, fd, lent, init_bytes) {
            Ok(loaded) => {
                let bytes = loaded.instance.bytes() as u64;
                let answer = ToNode::Loaded {
                    module,
                    writable_bytes: loaded.instance.writable_bytes() as u64,
                    init_bytes: loaded.instance.kept_bytes() as u64,
                    bytes,
                };
                let instance = self.place(loaded.instance);
                let number = u32::try_from(instance).unwrap_or(u32::MAX);
                for ((index, entry), spec) in loaded.entries.into_iter().zip(&request.functions) {
                    let mut target = Target::Loaded(Function::new(entry, number, &spec.limits, clock));
                    target.ban(self.is_banned(index));
                    self.set(index, target);
                    for alias in &spec.aliases {
                        self.redirect(*alias, index);
                    }
                }
                self.room.take(bytes);
                self.wants.settle(module);
                self.newest = Some(module);
                self.crowded = true;
                let is_pinned = self.find_module(module).is_some_and(|module| module.is_pinned);
                let loaded = Module { instance: Some(instance), is_pinned, ..Module::of(request, bytes) };
                match self.leaving.iter_mut().find(|leaving| leaving.number == module) {
                    Some(leaving) => leaving.module = loaded,
                    None => drop(self.known.insert(module, loaded)),
                }
                (answer, Ok(()))
            }
            Err(error) => {
                if self.find_module(module).is_some() {
                    self.wants.failed(module, monotonic_ns());
                } else {
                    for spec in &request.functions {
                        self.set(spec.function, Target::Refused);
                    }
                }
                let answer = ToNode::LoadFailed { module, reason: error.to_string() };
                (answer, if error.betrays() { Err(error) } else { Ok(()) })
            }
        }
    }

    fn try_load(
        &mut self,
        request: &Load,
        fd: Received,
        (context, state): (&mut Context, NonNull<State>),
        init_bytes: usize,
    ) -> Result<loader::Loaded, LoadError> {
        let is_leaving = self.leaving.iter().any(|leaving| leaving.number == request.module);
        if is_leaving && !request.functions.iter().any(|spec| self.is_cold(spec.function)) {
            return Err(LoadError::Unwanted);
        }
        // What `init` writes to is no heap of a call.
        none_is_current();
        self.loads = self.loads.wrapping_add(1);
        let loaded = load(fd, request, self.loads, context, state, init_bytes)?;
        let bytes = loaded.instance.bytes() as u64;
        if self.room.is_too_small_for(bytes) {
            // What stays of it is not counted: it was not in use.
            let _ = loaded.instance.unload();
            return Err(LoadError::Room(bytes, self.room.bytes_max()));
        }
        Ok(loaded)
    }

    /// Returns the bytes that have stayed.
    fn drop_instance(&mut self, instance: usize, bytes: u64) -> u64 {
        // A fault handler that looks for its heap finds none.
        none_is_current();
        self.room.give(bytes);
        self.instances[instance].take().map_or(0, Instance::unload) as u64
    }

    fn find_module(&self, number: u32) -> Option<&Module> {
        let leaving = || self.leaving.iter().find(|leaving| leaving.number == number);
        self.known.get(&number).or_else(|| leaving().map(|leaving| &leaving.module))
    }

    fn is_cold(&self, function: u32) -> bool {
        matches!(self.targets.get(function as usize), Some(Target::Cold(_)))
    }

    /// A call of this function waits for its module, which is cold.
    #[cold]
    pub fn want(&mut self, function: u32) {
        if let Some(Target::Cold(module)) = self.targets.get(function as usize) {
            self.wants.add(*module);
        }
    }

    /// Whether the node is to be asked for a module.
    #[inline]
    #[must_use]
    pub fn is_want_due(&self) -> bool {
        self.wants.is_due()
    }

    /// What the node is asked for by `say`, as far as it can be now.
    ///
    /// # Errors
    /// Those of `say`, but where the socket is full: then it is asked later.
    #[cold]
    pub fn say_wants(&mut self, say: impl Fn(&ToNode) -> io::Result<()>) -> io::Result<()> {
        while let Some(module) = self.wants.take_next() {
            match say(&ToNode::Wanted { module }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wants.unsaid(module);
                    break;
                }
                said => said?,
            }
        }
        Ok(())
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
        let is_here = match self.targets.get(from as usize) {
            Some(Target::Cold(module)) => self.known.contains_key(module),
            target => target.and_then(Target::loaded).is_some(),
        };
        if !is_here {
            self.set(from, Target::Moved(to));
        }
    }

    /// A module is to go. Returns what to tell the node. [`sweep`](Self::sweep) says when it has gone.
    pub fn unload(&mut self, request: Unload, lanes: &Lanes) -> ToNode {
        let Unload { module, successors } = request;
        // First: what is leaving and cold does not keep its calls from going on.
        let gone = self.known.remove(&module);
        for (from, to) in &successors {
            self.redirect(*from, *to);
        }
        if let Some(gone) = gone {
            let rings =
                (0..lanes.end()).filter_map(|index| Some((index, lanes.get(index)?.end.all_submitted())));
            self.leaving.push(Leaving { number: module, module: gone, successors, rings: rings.collect() });
        }
        ToNode::Unloading { module }
    }

    /// Whether a module is on its way out, or is to be unloaded when no call of it is in hand.
    #[inline]
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.crowded || !self.leaving.is_empty()
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
        let Leaving { number, module, successors, .. } = self.leaving.swap_remove(done);
        for function in &module.functions {
            let successor = successors.iter().find(|(from, _)| from == function);
            self.set(*function, successor.map_or(Target::None, |(_, to)| Target::Moved(*to)));
        }
        self.wants.settle(number);
        let stayed_bytes = module.instance.map_or(0, |instance| self.drop_instance(instance, module.bytes));
        Some(ToNode::Unloaded { module: number, stayed_bytes })
    }

    /// A function that is loaded, banned or not, with its instance.
    #[inline]
    pub fn find(&mut self, function: u32) -> Option<(&mut Function, &mut Instance)> {
        let function = self.targets.get_mut(function as usize)?.loaded_mut()?;
        let instance = self.instances.get_mut(function.instance as usize)?.as_mut()?;
        Some((function, instance))
    }
}

impl Module {
    /// Cold.
    fn of(load: &Load, bytes: u64) -> Self {
        let functions = load.functions.iter().map(|spec| spec.function).collect();
        Self { functions, instance: None, stays: load.stays, is_pinned: false, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use microfaas_control::{FunctionSpec, Limits};
    use microfaas_lane::worker::Submission;

    fn version(number: u32, aliases: &[u32]) -> Load {
        let (name, aliases, limits) = ("f".to_owned(), aliases.to_vec(), Limits::default());
        let functions = vec![FunctionSpec { function: number, name, aliases, limits }];
        Load { module: number, label: "m.so".to_owned(), image_bytes: 1, stays: false, functions }
    }

    /// Of two versions that are both here and cold, calls of either are the older one's and the newer one's own until the older one goes.
    #[test]
    fn a_cold_version_is_nobody_elses_while_it_is_here() {
        let mut modules = Modules::default();
        let _ = modules.shelve(vec![version(3, &[4])]);
        let _ = modules.shelve(vec![version(4, &[3])]);
        modules.redirect(4, 3);
        assert_eq!((modules.standing(3), modules.standing(4)), (Standing::Cold, Standing::Cold));
        let _ = modules.unload(Unload { module: 3, successors: vec![(3, 4)] }, &Lanes::default());
        assert_eq!((modules.standing(3), modules.standing(4)), (Standing::Moved, Standing::Cold));
        let call = Submission {
            slot: 0,
            generation: 0,
            function: 3,
            flags: 0,
            body_len: 0,
            meta_len: 0,
            deadline_ns: 0,
            submitted_cycles: 0,
        };
        assert_eq!(modules.successor(&call).function, 4);
    }
}
