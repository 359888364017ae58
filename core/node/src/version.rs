//! A version of a module: an image with the numbers that its functions have in workers.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, SystemTime};

use microfaas_control::Load;

use crate::function::{FunctionConfig, FunctionInfo};
use crate::image::Image;

/// One function of a [`Version`].
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name's number.
    pub(crate) name: u32,
    /// This version's own.
    pub(crate) function: u32,
    pub(crate) config: FunctionConfig,
}

/// One copy of an image in a worker.
#[derive(Debug)]
pub(crate) struct Part {
    /// What a worker is told, without aliases.
    pub(crate) load: Load,
    /// It is loaded when it is called.
    pub(crate) is_lazy: bool,
    /// Workers that have ended while they loaded it for a call, since it was last loaded.
    pub(crate) lost: AtomicU32,
}

impl Part {
    /// The numbers of its functions.
    pub(crate) fn functions(&self) -> impl Iterator<Item = u32> + '_ {
        self.load.functions.iter().map(|spec| spec.function)
    }
}

/// An image as workers have it, or are to have it.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) image: Arc<Image>,
    /// In the order of the image's functions.
    pub(crate) members: Vec<Member>,
    /// What workers load: one copy, or one for functions that keep their state and one for the others, which start each call from the beginning, with the same
    /// statics.
    pub(crate) parts: Vec<Part>,
    pub(crate) since: SystemTime,
}

impl Version {
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// The numbers that submissions to it carry.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.members.iter().map(|member| member.function)
    }

    /// Its functions by these numbers, for the watch over faults.
    pub(crate) fn watched(&self) -> (Vec<FunctionInfo>, Vec<(String, FunctionConfig)>) {
        let pairs = self.image.functions.iter().zip(&self.members);
        let info = |(name, member): (&String, &Member)| FunctionInfo {
            id: member.function,
            ..self.info(name, member)
        };
        let config = |(name, member): (&String, &Member)| (name.clone(), member.config.clone());
        (pairs.clone().map(info).collect(), pairs.map(config).collect())
    }

    pub(crate) fn info(&self, name: &str, member: &Member) -> FunctionInfo {
        FunctionInfo {
            id: member.name,
            name: name.to_owned(),
            module: self.image.path.clone(),
            deadline: member.config.deadline.unwrap_or(Duration::MAX),
            idempotent: member.config.idempotent,
            limits: member.config.limits,
            concurrency: member.config.concurrency,
        }
    }

    /// Whether the function of this number is loaded when it is called.
    pub(crate) fn is_lazy(&self, function: u32) -> bool {
        let has = |part: &Part| part.functions().any(|number| number == function);
        self.parts.iter().any(|part| part.is_lazy && has(part))
    }

    /// A copy that workers load.
    pub(crate) fn part(&self, number: u32) -> Option<&Part> {
        self.parts.iter().find(|part| part.load.module == number)
    }

    /// Numbers of what workers load.
    pub(crate) fn parts(&self) -> impl Iterator<Item = u32> + '_ {
        self.parts.iter().map(|part| part.load.module)
    }
}
