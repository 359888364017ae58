//! What workers are to have loaded, and the deployment that is being carried out.
//!
//! Workers are brought from what they have to what they are to have, one step at a time, whatever has happened to them meanwhile: a worker that is
//! replaced in the middle starts with what is wanted then.
//!
//! A deployment's modules are first loaded in a process that serves nobody: what crashes the loader, or breaks out of `init`, does it there. Then they are added to
//! what is wanted. One worker at a time loads them, since a worker runs no calls while a module's `init` runs; when all that serve have them, the names
//! are switched, all at once, and the old modules are wanted no more. Where one is refused, the new ones are wanted no more instead, and nothing
//! has changed for any caller.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use microfaas_control::admin::Deployed;
use microfaas_control::{ToNode, ToWorker, Unload};

use crate::DeployError;
use crate::command::Question;
use crate::completion::printable;
use crate::node::Shared;
use crate::registry::{Plan, Registry, Version, Wish};

/// How long a worker may take over one answer. Loading a module runs its `init`, which may be long.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long a deployment waits while no worker serves.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// Workers that may be lost while they load what is deployed: one may be chance.
const LOST_MAX: u32 = 1;

pub(crate) type DeployReply = SyncSender<Result<Deployed, DeployError>>;

/// What one worker process has of the modules' parts.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    has: BTreeSet<u32>,
    /// Of those, what it is unloading.
    leaving: BTreeSet<u32>,
    /// What it is loading.
    loading: Option<u32>,
    /// A question of this module's has not been answered.
    asked: bool,
    /// Bytes that are mapped though they were unloaded.
    stayed_bytes: u64,
}

impl Shelf {
    /// The worker is asked to load this.
    pub(crate) fn loads(&mut self, part: u32) {
        self.loading = Some(part);
    }

    /// The answer to that has come.
    pub(crate) fn loaded(&mut self, well: bool) {
        if let Some(part) = self.loading.take().filter(|_| well) {
            self.has.insert(part);
        }
    }

    /// Bytes that are mapped though they were unloaded.
    pub(crate) fn stayed_bytes(&self) -> u64 {
        self.stayed_bytes
    }

    fn holds(&self, part: u32) -> bool {
        self.has.contains(&part) || self.loading == Some(part)
    }
}

/// A deployment whose modules are being loaded.
#[derive(Debug)]
struct Job {
    serial: u64,
    /// They were loaded in a process that serves nobody.
    tried: bool,
    plan: Plan,
    reply: DeployReply,
    since: Instant,
    /// The worker whose turn it is.
    turn: Option<usize>,
    lost: u32,
}

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
}

impl Rollout {
    /// With a registry whose versions are what every worker starts with.
    pub(crate) fn new(registry: Registry) -> Self {
        let mut wanted = BTreeMap::new();
        for version in registry.active() {
            wanted.extend(version.parts().map(|part| (part, Arc::clone(version))));
        }
        Self { registry, wanted, retired: Vec::new(), job: None, jobs: 0, queue: VecDeque::new() }
    }

    /// A wish, to be carried out when those before it are.
    pub(crate) fn wish(&mut self, shared: &Shared, wish: Wish, since: Instant, reply: DeployReply) {
        self.queue.push_back((wish, since, reply));
        self.start_next(shared);
    }

    fn start_next(&mut self, shared: &Shared) {
        while self.job.is_none() {
            let Some((wish, since, reply)) = self.queue.pop_front() else { return };
            match self.registry.plan(wish) {
                Ok(plan) => {
                    for version in &plan.put {
                        self.wanted.extend(version.parts().map(|part| (part, Arc::clone(version))));
                    }
                    let is_ready = plan.put.is_empty();
                    self.jobs += 1;
                    let serial = self.jobs;
                    self.job = Some(Job { serial, tried: false, plan, reply, since, turn: None, lost: 0 });
                    if is_ready {
                        self.switch(shared);
                    }
                }
                Err(error) => tell(&reply, Err(error)),
            }
        }
    }

    /// What a worker has to load first, and what it is told. `trial`: the worker is to serve nobody, and has to load nothing but what is deployed.
    pub(crate) fn load(&self, shelf: &Shelf, trial: bool) -> Option<(u32, ToWorker, Arc<OwnedFd>)> {
        let tried = self.job.as_ref().is_none_or(|job| job.tried);
        let is_due = |part| if trial { self.is_staged(part) } else { tried || !self.is_staged(part) };
        let (part, version) = self.wanted.iter().find(|(part, _)| !shelf.holds(**part) && is_due(**part))?;
        let load = self.registry.load(version, *part)?;
        Some((*part, ToWorker::Load(load), Arc::clone(&version.image().sealed)))
    }

    /// The deployment whose modules are to be tried out.
    pub(crate) fn to_try(&self) -> Option<u64> {
        self.job.as_ref().filter(|job| !job.tried).map(|job| job.serial)
    }

    /// They could be loaded, all of them.
    pub(crate) fn tried(&mut self) {
        if let Some(job) = &mut self.job {
            job.tried = true;
        }
    }

    /// The process that loaded them did not get far; `shelf` says how far.
    pub(crate) fn trial_failed(&mut self, shared: &Shared, shelf: &Shelf, reason: &str) {
        let reason = printable(reason.as_bytes());
        self.give_up(match shelf.loading.and_then(|part| self.path(part)) {
            Some(path) => DeployError::LoadFailed { path, reason },
            None => DeployError::NoTrial(reason),
        });
        self.start_next(shared);
    }

    fn is_staged(&self, part: u32) -> bool {
        let staged = |job: &Job| job.plan.put.iter().any(|version| version.parts().any(|of| of == part));
        self.job.as_ref().is_some_and(staged)
    }

    /// Whether a worker has all that calls may ask of it.
    pub(crate) fn may_open(&self, shelf: &Shelf) -> bool {
        self.wanted.keys().all(|&part| shelf.has.contains(&part) || self.is_staged(part))
    }

    /// What a worker that serves is to be asked now.
    pub(crate) fn next(&mut self, worker: usize, shelf: &mut Shelf) -> Option<Question> {
        if shelf.asked {
            return None;
        }
        let question = |message, fds| Question { message, fds, within: ANSWER_WITHIN, generation: None };
        if let Some((part, message, fd)) = self.load(shelf, false)
            && self.takes_turn(worker, part)
        {
            shelf.asked = true;
            shelf.loads(part);
            return Some(question(message, vec![fd]));
        }
        let part = shelf
            .has
            .iter()
            .copied()
            .find(|part| !self.wanted.contains_key(part) && !shelf.leaving.contains(part))?;
        let version = self.retired.iter().find(|version| version.parts().any(|of| of == part))?;
        let successors = self.registry.successors(version, part);
        shelf.asked = true;
        shelf.leaving.insert(part);
        Some(question(ToWorker::Unload(Unload { module: part, successors }), Vec::new()))
    }

    /// Whether this worker may load this part now.
    fn takes_turn(&mut self, worker: usize, part: u32) -> bool {
        if !self.is_staged(part) {
            return true;
        }
        let Some(job) = &mut self.job else { return true };
        *job.turn.get_or_insert(worker) == worker
    }

    fn gives_turn(&mut self, worker: usize) {
        if let Some(job) = self.job.as_mut().filter(|job| job.turn == Some(worker)) {
            job.turn = None;
        }
    }

    /// What a worker that serves has answered.
    ///
    /// # Errors
    /// Why it cannot go on: it cannot load what callers may ask for.
    pub(crate) fn answered(
        &mut self,
        shared: &Shared,
        worker: usize,
        shelf: &mut Shelf,
        answer: ToNode,
    ) -> Result<(), String> {
        shelf.asked = false;
        self.gives_turn(worker);
        match answer {
            ToNode::Loaded { module, writable_bytes, init_bytes } => {
                shelf.loaded(true);
                tracing::debug!(worker, module, writable_bytes, init_bytes, "loaded");
            }
            ToNode::LoadFailed { module, reason } => {
                shelf.loaded(false);
                if !self.refused(shared, module, &reason) && self.wanted.contains_key(&module) {
                    return Err(printable(reason.as_bytes()));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A worker has unloaded a module. False where it was not to.
    pub(crate) fn unloaded(shelf: &mut Shelf, part: u32, stayed_bytes: u64) -> bool {
        shelf.stayed_bytes = shelf.stayed_bytes.saturating_add(stayed_bytes);
        shelf.leaving.remove(&part) && shelf.has.remove(&part)
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
    pub(crate) fn lost(&mut self, shared: &Shared, worker: usize, shelf: &Shelf, silent: bool) {
        self.gives_turn(worker);
        let Some(part) = shelf.loading.filter(|&part| self.is_staged(part)) else { return };
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

    /// The deployment has failed: what it has brought is wanted no more.
    fn give_up(&mut self, error: DeployError) {
        let Some(job) = self.job.take() else { return };
        tracing::warn!(%error, "deployment refused");
        for version in job.plan.put {
            self.retire(version);
        }
        tell(&job.reply, Err(error));
    }

    fn retire(&mut self, version: Arc<Version>) {
        self.wanted.retain(|_, of| !Arc::ptr_eq(of, &version));
        self.retired.push(version);
    }

    /// Callers get the new versions from now on, in every way that there is to call them.
    fn switch(&mut self, shared: &Shared) {
        let Some(Job { plan, reply, since, .. }) = self.job.take() else { return };
        let new = plan.put.clone();
        let (mut done, old) = self.registry.carry_out(plan);
        self.registry.publish(shared, &new);
        for version in old {
            shared.hub.bans.forget(version.numbers());
            self.retire(version);
        }
        done.took_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        for module in &done.modules {
            let digest = module.digest.as_deref().unwrap_or("none");
            tracing::info!(module = module.module, outcome = ?module.outcome, digest, "deployed");
        }
        tell(&reply, Ok(done));
    }

    /// Switches where all is ready, given what each worker that serves has, and gives up what cannot be done. True where anything was done.
    pub(crate) fn advance<'a>(
        &mut self,
        shared: &Shared,
        mut serving: impl Iterator<Item = &'a Shelf>,
    ) -> bool {
        let Some(job) = &self.job else { return false };
        let first = serving.next();
        if !job.tried {
            return false;
        }
        let staged = || job.plan.put.iter().flat_map(|version| version.parts());
        if let Some(first) = first
            && std::iter::once(first)
                .chain(serving)
                .all(|shelf| staged().all(|part| shelf.has.contains(&part)))
        {
            self.switch(shared);
        } else if first.is_none() && job.since.elapsed() >= SERVED_WITHIN {
            self.give_up(DeployError::NoWorker);
        } else {
            return false;
        }
        self.start_next(shared);
        true
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

    /// How long until a deployment that waits for a worker is given up; `None` where there is none.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.job.as_ref().map(|job| SERVED_WITHIN.saturating_sub(job.since.elapsed()))
    }
}

impl Registry {
    /// Shows callers what is in force now, in every way that there is to call it. Nothing counts yet against what is `new`.
    pub(crate) fn publish(&self, shared: &Shared, new: &[Arc<Version>]) {
        for version in new {
            let (functions, configs) = version.watched();
            shared.hub.bans.watch(&functions, &configs, 0);
        }
        shared.names.publish(&self.entries());
        shared.catalog.store(Arc::new(self.catalog()));
        shared.bulletin.changed();
    }
}

fn tell(reply: &DeployReply, result: Result<Deployed, DeployError>) {
    // An asker may have gone.
    let _ = reply.try_send(result);
}
