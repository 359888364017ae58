//! The deployment under way: from a wish to what callers see.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_control::admin::Deployed;

use super::{DeployReply, Rollout};
use crate::DeployError;
use crate::completion::printable;
use crate::launch::Role;
use crate::node::Shared;
use crate::registry::{Plan, Registry, Wish};
use crate::shelf::Shelf;
use crate::version::Version;

/// How long a deployment waits while no worker serves.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// A deployment whose modules are being loaded.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) serial: u64,
    /// The parts of what it puts.
    pub(super) staged: BTreeSet<u32>,
    /// Of these, what no worker is known to have loaded: to be loaded in a process that serves nobody first.
    pub(super) untried: BTreeSet<u32>,
    pub(super) plan: Plan,
    pub(super) reply: DeployReply,
    pub(super) since: Instant,
    /// The worker whose turn it is.
    pub(super) turn: Option<Role>,
    pub(super) lost: u32,
}

impl Job {
    pub(super) fn is_tried(&self) -> bool {
        self.untried.is_empty()
    }
}

impl Rollout {
    /// A wish, to be carried out when those before it are.
    pub(crate) fn wish(&mut self, shared: &Shared, wish: Wish, since: Instant, reply: DeployReply) {
        self.queue.push_back((wish, since, reply));
        self.start_next(shared);
    }

    pub(super) fn start_next(&mut self, shared: &Shared) {
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
                    let staged = plan.put.iter().flat_map(|version| version.parts()).collect();
                    let untried = plan.put.iter().filter(|version| !self.registry.is_proven(version));
                    let untried = untried.flat_map(|version| version.parts()).collect();
                    let (turn, lost) = (None, 0);
                    self.job = Some(Job { serial, staged, untried, plan, reply, since, turn, lost });
                    if is_ready {
                        self.switch(shared);
                    }
                }
                Err(error) => tell(&reply, Err(error)),
            }
        }
    }

    /// The deployment whose modules are to be tried out.
    pub(crate) fn to_try(&self) -> Option<u64> {
        self.job.as_ref().filter(|job| !job.is_tried()).map(|job| job.serial)
    }

    /// They could be loaded, all of them.
    pub(crate) fn tried(&mut self) {
        if let Some(job) = &mut self.job {
            job.untried.clear();
        }
    }

    /// The process that loaded them did not get far; `shelf` says how far.
    pub(crate) fn trial_failed(&mut self, shared: &Shared, shelf: &Shelf, reason: &str) {
        let reason = printable(reason.as_bytes());
        self.give_up(match shelf.loading().and_then(|part| self.path(part)) {
            Some(path) => DeployError::LoadFailed { path, reason },
            None => DeployError::NoTrial(reason),
        });
        self.start_next(shared);
    }

    /// The deployment has failed: what it has brought is wanted no more.
    pub(super) fn give_up(&mut self, error: DeployError) {
        let Some(job) = self.job.take() else { return };
        tracing::warn!(%error, "deployment refused");
        for version in job.plan.put {
            self.retire(version);
        }
        tell(&job.reply, Err(error));
    }

    pub(super) fn retire(&mut self, version: Arc<Version>) {
        self.wanted.retain(|_, of| !Arc::ptr_eq(of, &version));
        self.retired.push(version);
    }

    /// Callers get the new versions from now on, in every way that there is to call them.
    pub(super) fn switch(&mut self, shared: &Shared) {
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
        if !job.is_tried() {
            return false;
        }
        let staged = || job.plan.put.iter().flat_map(|version| version.parts());
        if let Some(first) = first
            && std::iter::once(first).chain(serving).all(|shelf| staged().all(|part| shelf.knows(part)))
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

    /// How long until a deployment that waits for a worker is given up; `None` where there is none.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let tried = self.job.as_ref().filter(|job| job.is_tried());
        tried.map(|job| SERVED_WITHIN.saturating_sub(job.since.elapsed()))
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
