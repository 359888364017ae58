//! What a process is to be told next, so that it has what it is to have.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use microfaas_control::{PACKET_BYTES_MAX, ToWorker, encode};

use super::Rollout;
use crate::launch::Role;
use crate::shelf::Shelf;
use crate::version::Version;

/// Bytes of what a worker is told of cold modules at a time, which fit a packet with what is around them.
const SHELVED_BYTES_MAX: usize = PACKET_BYTES_MAX - 1024;

/// What a process is to do next, to have what it is to have.
#[derive(Debug)]
pub(crate) enum Errand {
    Load { part: u32, message: ToWorker, image: Arc<OwnedFd> },
    Shelve { parts: Vec<u32>, message: ToWorker },
}

impl Errand {
    /// The process is asked for it: the message, and what goes beside it.
    pub(crate) fn begin(self, shelf: &mut Shelf) -> (ToWorker, Vec<Arc<OwnedFd>>) {
        match self {
            Self::Load { part, message, image } => {
                shelf.loads(part);
                (message, vec![image])
            }
            Self::Shelve { parts, message } => {
                shelf.shelves(parts);
                (message, Vec::new())
            }
        }
    }
}

impl Rollout {
    /// What a process has to do first, if anything. One that tries things out has to load nothing but what is being deployed; a spare, which no
    /// deployment is to wait for, nothing of that.
    pub(crate) fn errand(&self, shelf: &Shelf, role: Role) -> Option<Errand> {
        let tried = self.job.as_ref().is_none_or(|job| job.is_tried());
        let is_untried = |part: &u32| self.job.as_ref().is_some_and(|job| job.untried.contains(part));
        let is_due = |part| match role {
            Role::Trial => is_untried(&part),
            Role::Spare => !self.is_staged(part),
            Role::Place(_) => tried || !self.is_staged(part),
        };
        let mut missing =
            self.wanted.iter().filter(|(part, _)| !shelf.holds(**part) && is_due(**part)).peekable();
        let (first, version) = missing.peek()?;
        if self.is_to_load(version, **first, shelf, role) {
            return self.load(version, **first, role);
        }
        let (mut parts, mut modules, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (part, version) in missing {
            let load = self.registry.load(version, *part)?;
            bytes += encode(&load).map_or(PACKET_BYTES_MAX, |packet| packet.len() + 1);
            // The first one goes in any case: what does not fit a packet alone cannot be sent, and that is said.
            if self.is_to_load(version, *part, shelf, role) || bytes > SHELVED_BYTES_MAX && !parts.is_empty()
            {
                break;
            }
            parts.push(*part);
            modules.push(load);
        }
        Some(Errand::Shelve { parts, message: ToWorker::Shelve { modules } })
    }

    /// Whether a process is to have this part loaded without a call.
    fn is_to_load(&self, version: &Version, part: u32, shelf: &Shelf, role: Role) -> bool {
        let is_lazy = version.part(part).is_some_and(|part| part.is_lazy);
        let before = || self.registry.active_of(&version.image().name);
        let was_loaded = || before().is_some_and(|before| before.parts().any(|part| shelf.is_loaded(part)));
        !is_lazy || role == Role::Trial || was_loaded()
    }

    fn load(&self, version: &Version, part: u32, role: Role) -> Option<Errand> {
        let mut load = self.registry.load(version, part)?;
        // What is tried out is there until all of it was.
        load.stays |= role == Role::Trial;
        Some(Errand::Load { part, message: ToWorker::Load(load), image: Arc::clone(&version.image().sealed) })
    }

    /// What calls in a worker have waited for the longest.
    pub(super) fn wanted_first(&self, shelf: &mut Shelf, role: Role) -> Option<Errand> {
        while let Some(part) = shelf.first_want() {
            let errand = self.version_of(part).and_then(|version| self.load(version, part, role));
            if errand.is_some() {
                return errand;
            }
            shelf.drop_want(part);
        }
        None
    }
}
