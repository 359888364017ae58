//! Deploying, rolling back, removing and listing modules while the node serves.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_control::Loading;
use microfaas_control::admin::{AdminAnswer, AdminRequest, Deployed, FunctionDescription, ModuleInfo};
use microfaas_manifest::InspectError;
use thiserror::Error;

use crate::builder::{DEADLINE, check_settings};
use crate::function::{FunctionConfig, Settings};
use crate::image::{Source, read_all};
use crate::node::Shared;
use crate::registry::{Registry, Wish};
use crate::version::Version;
use crate::{Node, NodeError};

/// Why nothing was deployed. Each prints as one line; callers notice nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeployError {
    /// A module directory cannot be listed.
    #[error("module directory `{}`: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not a module that this runtime can use.
    #[error("module `{}`: {source}", path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// Why.
        source: InspectError,
    },
    /// There are no modules.
    #[error("no functions: {looked}")]
    NoModules {
        /// Where they were looked for.
        looked: String,
    },
    /// Two files have the same name, by which modules are known.
    #[error("module `{name}` is both `{}` and `{}`", first.display(), second.display())]
    DuplicateModule {
        /// The name.
        name: String,
        /// The file that was read first.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// Two modules have a function of the same name.
    #[error("function `{name}` is in both `{}` and `{}`", first.display(), second.display())]
    DuplicateFunction {
        /// The name.
        name: String,
        /// The module that is there, or was read first.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// Settings were given for a function that no module has.
    #[error("settings for function `{name}`, which no module has")]
    UnknownSettings {
        /// The name.
        name: String,
    },
    /// A setting is outside its range.
    #[error("{field} is {value}, allowed are {min} to {max}")]
    Range {
        /// The setting.
        field: &'static str,
        /// What was given.
        value: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// Too many functions, those that were removed counted.
    #[error("{count} names of functions in the life of the node, at most {max} are allowed")]
    TooManyNames {
        /// How many there would be.
        count: usize,
        /// Most.
        max: usize,
    },
    /// Neither a module nor a function.
    #[error("no module or function has the name `{name}`")]
    Unknown {
        /// The name.
        name: String,
    },
    /// There is no such function.
    #[error("no function has the name `{name}`")]
    NoFunction {
        /// The name.
        name: String,
    },
    /// A function is removed with its module.
    #[error("function `{name}` is one of {functions} of module `{module}`; remove the module")]
    NotAlone {
        /// The function.
        name: String,
        /// Its module.
        module: String,
        /// How many functions that has.
        functions: usize,
    },
    /// There is no image to go back to.
    #[error("module `{module}` had no other image before")]
    NothingBefore {
        /// Its name.
        module: String,
    },
    /// It cannot be loaded, or its `init` has failed.
    #[error("cannot load module `{}`: {reason}", path.display())]
    LoadFailed {
        /// The module's file.
        path: PathBuf,
        /// Why, as a worker says it.
        reason: String,
    },
    /// It could not be tried out in a process of its own.
    #[error("modules cannot be tried out: {0}")]
    NoTrial(String),
    /// Workers have died over it.
    #[error("workers were lost while they loaded module `{}`", path.display())]
    WorkersLost {
        /// The module's file.
        path: PathBuf,
    },
    /// No worker came up in time.
    #[error("no worker is up to load it")]
    NoWorker,
    /// This is a host that is attached to a node, which has the modules.
    #[error("modules are deployed at the node that this host is attached to")]
    Attached,
    /// The node was shut down.
    #[error("the node is shutting down")]
    Closed,
}

impl From<DeployError> for NodeError {
    /// What can be wrong with modules at the start of a node.
    fn from(error: DeployError) -> Self {
        match error {
            DeployError::Directory { path, source } => Self::Directory { path, source },
            DeployError::Module { path, source } => Self::Module { path, source },
            DeployError::NoModules { looked } => Self::NoFunctions { looked },
            DeployError::DuplicateFunction { name, first, second } => {
                Self::DuplicateFunction { name, first, second }
            }
            DeployError::UnknownSettings { name } => Self::UnknownFunction { name },
            DeployError::Range { field, value, min, max } => Self::Range { field, value, min, max },
            other => Self::Modules(other),
        }
    }
}

/// What [`Node::reload`] puts in place of what there is.
#[derive(Debug, Clone, Default)]
#[must_use = "a reload does nothing until it is given to a node"]
pub struct Reload {
    sources: Vec<Source>,
    functions: Vec<(String, FunctionConfig)>,
    deadline: Option<Duration>,
    ban_after: u32,
    load: Loading,
}

impl Reload {
    /// Every `*.so` in a directory. May be called again.
    pub fn modules(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::Directory(directory.into()));
        self
    }

    /// One module. May be called again.
    pub fn module(mut self, file: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::File(file.into()));
        self
    }

    /// Settings of one function.
    pub fn function(mut self, name: impl Into<String>, config: FunctionConfig) -> Self {
        self.functions.push((name.into(), config));
        self
    }

    /// How long a caller waits who sets no deadline. Default: 30 s.
    pub fn deadline_default(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// As [`NodeBuilder::ban_after`](crate::NodeBuilder::ban_after).
    pub fn ban_after(mut self, faults: u32) -> Self {
        self.ban_after = faults;
        self
    }

    /// As [`NodeBuilder::load_default`](crate::NodeBuilder::load_default).
    pub fn load_default(mut self, when: Loading) -> Self {
        self.load = when;
        self
    }
}

impl Node {
    /// Deploys a module, or every `*.so` of a directory: all of them or none. A module is known by its file's name: one that is there is replaced, others stay.
    /// When this returns, new calls get the new version everywhere; calls that were submitted before end on the old one. Settings of functions stay.
    ///
    /// # Errors
    /// [`DeployError`]; what was in use is in use still. A module that a worker cannot load, or whose `init` fails in one, is refused as a whole.
    ///
    /// # Cost
    /// Waits for all of it. The modules are first loaded in a process that serves nobody, which takes some milliseconds; then each worker in turn runs no calls
    /// while it loads: some 100 us, and as long as the module's `init` takes.
    pub fn deploy(&self, path: impl Into<PathBuf>) -> Result<Deployed, DeployError> {
        self.shared().deploy(path.into())
    }

    /// Brings back the image that a module had before; the one that it has now is what it had before then. `name` is the module's file name, with `.so` or
    /// without, or one of its functions. A module that was removed comes back.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy), and [`DeployError::Unknown`], [`DeployError::NothingBefore`].
    pub fn rollback(&self, name: &str) -> Result<Deployed, DeployError> {
        self.shared().carry_out(Wish::Rollback(name.to_owned()), Instant::now())
    }

    /// Takes a module away; `name` as in [`rollback`](Self::rollback). New calls of its functions are [`NotFound`](crate::Status::NotFound), those that were submitted
    /// before end as ever.
    ///
    /// # Errors
    /// [`DeployError::Unknown`]; [`DeployError::NotAlone`] for a function that shares its module with others.
    pub fn remove(&self, name: &str) -> Result<Deployed, DeployError> {
        self.shared().carry_out(Wish::Remove(name.to_owned()), Instant::now())
    }

    /// Puts these modules and settings in place of all that there are: what is new or has changed is deployed, what is missing is removed, all at once.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy), and where a setting is wrong.
    pub fn reload(&self, reload: Reload) -> Result<Deployed, DeployError> {
        let since = Instant::now();
        let Reload { sources, functions, deadline, ban_after, load } = reload;
        let settings = Settings { functions, deadline: deadline.unwrap_or(DEADLINE), ban_after, load };
        check_settings(&settings)?;
        self.shared().carry_out(Wish::Exactly(read_all(&sources)?, settings), since)
    }

    /// The modules that are in use, by name.
    #[must_use]
    pub fn list(&self) -> Vec<ModuleInfo> {
        self.shared().catalog.load().with_stock(self.shared()).collect()
    }

    /// A function in every detail; `None` where there is none of that name.
    #[must_use]
    pub fn describe(&self, function: &str) -> Option<FunctionDescription> {
        self.shared().catalog.load().describe(self.shared(), function)
    }
}

impl Shared {
    fn deploy(&self, path: PathBuf) -> Result<Deployed, DeployError> {
        let since = Instant::now();
        self.carry_out(Wish::Put(read_all(&[Source::of(path)])?), since)
    }

    fn carry_out(&self, wish: Wish, since: Instant) -> Result<Deployed, DeployError> {
        self.desk.deploy(wish, since).map_err(|error| match error {
            // Nobody takes what is handed in.
            DeployError::Closed if !self.is_closed() => DeployError::Attached,
            error => error,
        })
    }

    /// Does what an operator asks, and waits for it.
    pub(crate) fn administrate(&self, request: AdminRequest) -> AdminAnswer {
        let done = match request {
            AdminRequest::Deploy { path } => self.deploy(path.into()),
            AdminRequest::Rollback { name } => self.carry_out(Wish::Rollback(name), Instant::now()),
            AdminRequest::Remove { name } => self.carry_out(Wish::Remove(name), Instant::now()),
            AdminRequest::List { after } => {
                let catalog = self.catalog.load();
                let is_later = |module: &ModuleInfo| after.as_ref().is_none_or(|after| module.name > *after);
                let modules = catalog.with_stock(self).filter(is_later).collect();
                return AdminAnswer::Modules { modules, more: false };
            }
            AdminRequest::Describe { name } => {
                return match self.catalog.load().describe(self, &name) {
                    Some(mut described) => {
                        let bans = self.hub.bans.list();
                        let ban = bans.iter().find(|ban| ban.function == name);
                        described.banned = ban.map(|ban| ban.cause.to_string());
                        AdminAnswer::Function(Box::new(described))
                    }
                    None => AdminAnswer::Refused { reason: DeployError::NoFunction { name }.to_string() },
                };
            }
            AdminRequest::LiftBan { name } => {
                let Some(lifted) = self.hub.bans.lift(&name) else {
                    return AdminAnswer::Refused { reason: DeployError::NoFunction { name }.to_string() };
                };
                self.hub.wake_supervisor();
                return AdminAnswer::Lifted(lifted);
            }
        };
        done.map_or_else(|error| AdminAnswer::Refused { reason: error.to_string() }, AdminAnswer::Deployed)
    }
}

/// At the start: a registry of these modules, which no worker has yet, and what is new in it: everything.
pub(crate) fn first(
    sources: &[Source],
    settings: Settings,
) -> Result<(Registry, Vec<Arc<Version>>), DeployError> {
    let images = read_all(sources)?;
    let mut registry = Registry::new(settings.clone());
    let plan = registry.plan(Wish::Exactly(images, settings))?;
    let versions = plan.put.clone();
    registry.carry_out(plan);
    Ok((registry, versions))
}
