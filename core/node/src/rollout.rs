//! What workers are to have loaded, and the deployment that is being carried out.
//!
//! Workers are brought from what they have to what they are to have, one step at a time, whatever has happened to them meanwhile: a worker that is
//! replaced in the middle starts with what is wanted then.
//!
//! A deployment's modules are first loaded in a process that serves nobody: what crashes the loader, or breaks out of `init`, does it there. Then they are added to
//! what is wanted. One worker at a time loads them, since a worker runs no calls while a module's `init` runs; when all that serve have them, the names
//! are switched, all at once, and the old modules are wanted no more. Where one is refused, the new ones are wanted no more instead, and nothing
//! has changed for any caller.
//!
//! A module that is to be loaded when it is called is loaded in that process too, and no worker waits for it: workers are told that it is there, which is all that is
//! wanted of them. One that has the version before loaded gets the new one loaded as well, so that what is called a lot is as warm as before.

mod errand;
mod job;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use microfaas_control::admin::Deployed;
use microfaas_control::{ToNode, ToWorker, Unload};

pub(crate) use self::errand::Errand;
use self::job::Job;
use crate::DeployError;
use crate::command::Question;
use crate::completion::printable;
use crate::launch::Role;
use crate::node::Shared;
use crate::registry::{Registry, Wish};
use crate::shelf::{News, Shelf};
use crate::stock::Stock;
use crate::version::{Part, Version};

/// How long a worker may take over one answer. Loading a module runs its `init`, which may be long.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of unloaded modules that may stay mapped in a worker; then it is replaced when it has nothing to do.
pub(crate) const STAYED_BYTES_MAX: u64 = 256 << 20;
/// Workers that may be lost while they load what is deployed, or called for the first time: one may be chance.
const LOST_MAX: u32 = 1;

pub(crate) type DeployReply = SyncSender<Result<Deployed, DeployError>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Rollout {
    registry: Registry,
    /// What workers are to have, by part.
    wanted: BTreeMap<u32, Arc<Version>>,
    /// What they may have besides, until none of them has it.
    retired: Vec<Arc<Version>>,
    job: Option<Job>,
    jobs: u64,
    queue: VecDeque<(Wish, Instant, DeployReply)>,
    stock: Arc<Stock>,
}

impl Rollout {
    /// With a registry whose versions are what every worker starts with.
    pub(crate) fn new(registry: Registry, stock: Arc<Stock>) -> Self {
        let mut wanted = BTreeMap::new();
        for version in registry.active() {
            wanted.extend(version.parts().map(|part| (part, Arc::clone(version))));
        }
        Self { registry, wanted, retired: Vec::new(), job: None, jobs: 0, queue: VecDeque::new(), stock }
    }

    /// The version of a part that workers may have.
    fn version_of(&self, part: u32) -> Option<&Arc<Version>> {
        let retired = || self.retired.iter().find(|version| version.part(part).is_some());
        self.wanted.get(&part).or_else(retired)
    }

    fn is_staged(&self, part: u32) -> bool {
        self.job.as_ref().is_some_and(|job| job.staged.contains(&part))
    }

    /// Whether a worker has all that calls may ask of it.
    pub(crate) fn may_open(&self, shelf: &Shelf) -> bool {
        self.wanted.keys().all(|&part| shelf.knows(part) || self.is_staged(part))
    }

    /// What a worker that serves, or a spare, is to be asked now.
    pub(crate) fn next(&mut self, role: Role, shelf: &mut Shelf) -> Option<Question> {
        if shelf.is_asked() {
            return None;
        }
        let question = |(message, fds)| Question { message, fds, within: ANSWER_WITHIN, generation: None };
        if !shelf.has_served_want()
            && let Some(errand) = self.wanted_first(shelf, role)
        {
            return Some(question(self.begin(errand, role, shelf)));
        }
        if let Some(errand) = self.errand(shelf, role)
            && self.takes_turn(role, &errand)
        {
            return Some(question(self.begin(errand, role, shelf)));
        }
        if let Some(message) = self.unload(shelf) {
            return Some(question((message, Vec::new())));
        }
        self.wanted_first(shelf, role).map(|errand| question(self.begin(errand, role, shelf)))
    }

    /// A worker that serves, or a spare, is sent on an errand.
    fn begin(&self, errand: Errand, role: Role, shelf: &mut Shelf) -> (ToWorker, Vec<Arc<OwnedFd>>) {
        if let (Errand::Load { part, .. }, Role::Place(worker)) = (&errand, role) {
            self.stock.loads(worker, self.functions(*part));
        }
        errand.begin(shelf)
    }

    /// A process that has this is in a place from now on.
    pub(crate) fn enters(&self, worker: usize, shelf: &Shelf) {
        self.stock.enters(worker, shelf, |part| self.functions(part));
    }

    /// Tells a worker to unload something that it is not to have any more, if there is such a thing.
    fn unload(&self, shelf: &mut Shelf) -> Option<ToWorker> {
        let part = shelf.staying().find(|part| !self.wanted.contains_key(part))?;
        let successors = self.registry.successors(self.version_of(part)?, part);
        shelf.unloads(part);
        Some(ToWorker::Unload(Unload { module: part, successors }))
    }

    /// Whether this worker may load this part now.
    fn takes_turn(&mut self, role: Role, errand: &Errand) -> bool {
        match errand {
            Errand::Load { part, .. } if self.is_staged(*part) => {}
            _ => return true,
        }
        let Some(job) = &mut self.job else { return true };
        *job.turn.get_or_insert(role) == role
    }

    fn gives_turn(&mut self, role: Role) {
        if let Some(job) = self.job.as_mut().filter(|job| job.turn == Some(role)) {
            job.turn = None;
        }
    }

    /// What a worker that serves, or a spare, has answered.
    ///
    /// # Errors
    /// Why it cannot go on: it cannot load what callers may ask for.
    pub(crate) fn answered(
        &mut self,
        shared: &Shared,
        role: Role,
        shelf: &mut Shelf,
        answer: ToNode,
    ) -> Result<(), String> {
        self.gives_turn(role);
        match answer {
            ToNode::Loaded { module, writable_bytes, init_bytes, bytes } => {
                let waited = shelf.loaded(bytes);
                if let Some(part) = self.part(module) {
                    part.lost.store(0, Ordering::Relaxed);
                }
                if let Role::Place(worker) = role {
                    self.stock.loaded(worker, (module, bytes), waited, self.functions(module));
                }
                tracing::debug!(?role, module, ?waited, writable_bytes, init_bytes, bytes, "loaded");
            }
            ToNode::LoadFailed { module, reason } => {
                shelf.answered();
                if let Role::Place(worker) = role {
                    self.stock.cannot_load(worker, self.functions(module));
                }
                if shelf.is_cold(module) {
                    self.stays_cold(role, module, &reason);
                } else if !self.refused(shared, module, &reason) && self.wanted.contains_key(&module) {
                    return Err(printable(reason.as_bytes()));
                }
            }
            _ => shelf.answered(),
        }
        Ok(())
    }

    /// What a call wanted could not be loaded.
    fn stays_cold(&self, role: Role, part: u32, reason: &str) {
        // Where it is not wanted any more, that may be why.
        let Some(path) = self.path(part) else { return };
        let reason = printable(reason.as_bytes());
        tracing::warn!(?role, module = %path.display(), reason, "a module that was called cannot be loaded");
        if let Role::Place(worker) = role {
            self.stock.failed(worker);
        }
    }

    /// What a worker has said of its modules, unasked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn news(&self, role: Role, shelf: &mut Shelf, news: News) -> Result<(), String> {
        let (part, is_right) = match news {
            News::Wanted { part } => (part, shelf.wants(part)),
            News::Unloaded { part, stayed_bytes } => (part, shelf.unloaded(part, stayed_bytes)),
            News::Evicted { part, stayed_bytes } => {
                tracing::debug!(?role, module = part, stayed_bytes, "unloaded to make room");
                (part, shelf.evicted(part, stayed_bytes))
            }
        };
        if !is_right {
            return Err(format!("module {part} is {}", news.name()));
        }
        if let (News::Unloaded { .. } | News::Evicted { .. }, Role::Place(worker)) = (news, role) {
            let makes_room = matches!(news, News::Evicted { .. });
            self.stock.unloaded(worker, part, makes_room, self.functions(part));
        }
        Ok(())
    }

    /// The numbers of a part's functions.
    fn functions(&self, part: u32) -> impl Iterator<Item = u32> + '_ {
        self.part(part).into_iter().flat_map(Part::functions)
    }

    fn part(&self, part: u32) -> Option<&Part> {
        self.version_of(part)?.part(part)
    }

    /// A worker cannot load this part. True where it is of the deployment, which has failed then.
    pub(crate) fn refused(&mut self, shared: &Shared, part: u32, reason: &str) -> bool {
        let staged = self.is_staged(part);
        if staged {
            let path = self.wanted[&part].image().path.clone();
            let reason = printable(reason.as_bytes());
            self.give_up(DeployError::LoadFailed { path, reason });
            self.start_next(shared);
        }
        staged
    }

    /// The file of a part, for messages.
    pub(crate) fn path(&self, part: u32) -> Option<std::path::PathBuf> {
        self.wanted.get(&part).map(|version| version.image().path.clone())
    }

    /// A worker has ended, or is about to. `silent`: since it took too long over its answer.
    pub(crate) fn lost(&mut self, shared: &Shared, role: Role, shelf: &Shelf, began: bool, silent: bool) {
        self.gives_turn(role);
        let Some(part) = shelf.loading().filter(|_| began) else { return };
        if shelf.is_cold(part) {
            self.lost_to_call(shared, part);
        }
        if !self.is_staged(part) {
            return;
        }
        let path = self.wanted[&part].image().path.clone();
        let Some(job) = &mut self.job else { return };
        job.lost += 1;
        if silent {
            let reason = format!("no answer in {} s", ANSWER_WITHIN.as_secs());
            self.give_up(DeployError::LoadFailed { path, reason });
        } else if job.lost > LOST_MAX {
            self.give_up(DeployError::WorkersLost { path });
        }
        self.start_next(shared);
    }

    /// A worker has ended while it loaded what calls wanted, which another one will be asked for next.
    fn lost_to_call(&self, shared: &Shared, part: u32) {
        let Some((version, lost)) = self.version_of(part).zip(self.part(part).map(|part| &part.lost)) else {
            return;
        };
        if lost.fetch_add(1, Ordering::Relaxed) < LOST_MAX {
            return;
        }
        // Who lifts the ban gives it as many chances again.
        lost.store(0, Ordering::Relaxed);
        let module = version.image().path.display();
        tracing::error!(%module, "workers were lost while they loaded a module that was called");
        if let Some(function) = version.numbers().next() {
            // All of the module, whichever of them was called.
            shared.hub.bans.fault(function, true);
        }
    }

    /// Forgets versions that no worker has any more.
    pub(crate) fn forget<'a>(&mut self, shelves: impl Iterator<Item = &'a Shelf> + Clone) {
        let Self { retired, registry, .. } = self;
        retired.retain(|version| {
            let held = version.parts().any(|part| shelves.clone().any(|shelf| shelf.holds(part)));
            if !held {
                registry.drop_version(version);
            }
            held
        });
    }
}
