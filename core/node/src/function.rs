//! What is said of functions: their settings, and what a host gets to see.

use std::path::PathBuf;
use std::time::Duration;

use microfaas_control::{Limits, Loading};

/// Settings of one function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionConfig {
    /// How long a caller waits who sets no deadline; the node's default where `None`.
    pub deadline: Option<Duration>,
    /// Running it twice does no harm, so a call whose worker died may be run again.
    pub idempotent: bool,
    /// How long its calls may have the core.
    pub limits: Limits,
    /// How many of its calls may end FAULT or DENIED before it is banned; 0 is never, the node's default where `None`.
    pub ban_after: Option<u32>,
    /// Most of its calls that a host may have on their way, waiting or running: more are OVERLOADED. 0 for no limit. Each host that is attached has
    /// as many.
    pub concurrency: u32,
    /// When it is loaded; the node's default where `None`. Functions of one module are loaded together, those that keep state apart from the others: at the start
    /// where one of them is to be.
    pub load: Option<Loading>,
}

impl FunctionConfig {
    /// Sets [`concurrency`](Self::concurrency).
    #[must_use]
    pub fn concurrency(mut self, calls: u32) -> Self {
        self.concurrency = calls;
        self
    }

    /// Sets [`deadline`](Self::deadline).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets [`idempotent`](Self::idempotent).
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Sets [`limits`](Self::limits).
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets [`ban_after`](Self::ban_after).
    #[must_use]
    pub fn ban_after(mut self, faults: u32) -> Self {
        self.ban_after = Some(faults);
        self
    }

    /// Sets [`load`](Self::load).
    #[must_use]
    pub fn load(mut self, when: Loading) -> Self {
        self.load = Some(when);
        self
    }
}

/// One function of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionInfo {
    /// Its number, from 0; its name keeps it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The module's file.
    pub module: PathBuf,
    /// How long a caller waits who sets no deadline.
    pub deadline: Duration,
    /// See [`FunctionConfig::idempotent`].
    pub idempotent: bool,
    /// How long its calls may have the core.
    pub limits: Limits,
    /// See [`FunctionConfig::concurrency`].
    pub concurrency: u32,
}

/// Settings of functions, whether there are such functions or not.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) functions: Vec<(String, FunctionConfig)>,
    /// Where a function has none of its own.
    pub(crate) deadline: Duration,
    /// Where a function has none of its own; 0 is never.
    pub(crate) ban_after: u32,
    /// Where a function has none of its own.
    pub(crate) load: Loading,
}

impl Settings {
    /// The last of a name counts.
    pub(crate) fn of(&self, name: &str) -> FunctionConfig {
        let found = self.functions.iter().rfind(|(of, _)| of == name);
        let mut config = found.map(|(_, config)| config.clone()).unwrap_or_default();
        config.deadline.get_or_insert(self.deadline);
        config.ban_after.get_or_insert(self.ban_after);
        config.load.get_or_insert(self.load);
        config
    }
}
