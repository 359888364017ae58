//! Which functions there are, and the modules that hold them. Built once, before anything is started.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use microfaas_control::{FunctionSpec, Limits, Load};
use microfaas_manifest::{InspectError, MODULE_BYTES_MAX, inspect_bytes};
use microfaas_sys::memfd;

use crate::NodeError;

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
}

impl FunctionConfig {
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
}

/// One function of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionInfo {
    /// Dense number, from 0.
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
}

/// A module, ready to be sent to workers.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) path: PathBuf,
    /// Sealed copy of the file, the one that was inspected: what happens to the file later does not matter.
    pub(crate) image: OwnedFd,
    pub(crate) load: Load,
}

#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) modules: Vec<Module>,
    pub(crate) functions: Vec<FunctionInfo>,
    pub(crate) by_name: HashMap<String, u32>,
}

/// Where modules come from, in the order given.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Directory(PathBuf),
    File(PathBuf),
}

impl Registry {
    pub(crate) fn read(
        sources: &[Source],
        configs: &[(String, FunctionConfig)],
        deadline_default: Duration,
    ) -> Result<Self, NodeError> {
        let mut registry = Self { modules: Vec::new(), functions: Vec::new(), by_name: HashMap::new() };
        let mut seen = HashSet::new();
        for path in files(sources)? {
            // The same file given twice, as by a directory and by name, is one module.
            if seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                registry.add(path, deadline_default)?;
            }
        }
        if registry.functions.is_empty() {
            return Err(NodeError::NoFunctions { looked: describe(sources) });
        }
        for (name, config) in configs {
            let Some(id) = registry.by_name.get(name) else {
                return Err(NodeError::UnknownFunction { name: name.clone() });
            };
            let function = &mut registry.functions[*id as usize];
            function.deadline = config.deadline.unwrap_or(deadline_default);
            function.idempotent = config.idempotent;
            function.limits = config.limits;
            for module in &mut registry.modules {
                for spec in module.load.functions.iter_mut().filter(|spec| spec.function == *id) {
                    spec.limits = config.limits;
                }
            }
        }
        registry.part_stateful()?;
        Ok(registry)
    }

    /// Functions that keep their state get a copy of their module to themselves: those beside them start each call from the beginning, with the same statics.
    fn part_stateful(&mut self) -> Result<(), NodeError> {
        for i in 0..self.modules.len() {
            let module = &mut self.modules[i];
            let functions = std::mem::take(&mut module.load.functions);
            let (stateful, others): (Vec<_>, Vec<_>) =
                functions.into_iter().partition(|spec| spec.limits.stateful);
            if stateful.is_empty() || others.is_empty() {
                module.load.functions = if others.is_empty() { stateful } else { others };
                continue;
            }
            module.load.functions = others;
            let (path, label) = (module.path.clone(), module.load.label.clone());
            let image = module
                .image
                .try_clone()
                .map_err(|error| NodeError::Module { path: path.clone(), source: error.into() })?;
            let module = u32::try_from(self.modules.len()).expect("fewer modules than functions");
            self.modules.push(Module { path, image, load: Load { module, label, functions: stateful } });
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, deadline: Duration) -> Result<(), NodeError> {
        let refused = |source| NodeError::Module { path: path.clone(), source };
        let bytes = read(&path).map_err(refused)?;
        let manifest = inspect_bytes(&bytes).map_err(refused)?;
        let label = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let image = image(&label, &bytes).map_err(|source| refused(source.into()))?;
        let mut specs = Vec::with_capacity(manifest.functions.len());
        for name in manifest.functions {
            let id = u32::try_from(self.functions.len()).expect("a module has at most 1024 functions");
            if let Some(first) = self.by_name.insert(name.clone(), id) {
                let first = self.functions[first as usize].module.clone();
                return Err(NodeError::DuplicateFunction { name, first, second: path });
            }
            specs.push(FunctionSpec { function: id, name: name.clone(), limits: Limits::default() });
            self.functions.push(FunctionInfo {
                id,
                name,
                module: path.clone(),
                deadline,
                idempotent: false,
                limits: Limits::default(),
            });
        }
        let module = u32::try_from(self.modules.len()).expect("fewer modules than functions");
        self.modules.push(Module { path, image, load: Load { module, label, functions: specs } });
        Ok(())
    }
}

fn files(sources: &[Source]) -> Result<Vec<PathBuf>, NodeError> {
    let mut files = Vec::new();
    for source in sources {
        match source {
            Source::File(path) => files.push(path.clone()),
            Source::Directory(path) => {
                let failed = |source| NodeError::Directory { path: path.clone(), source };
                let mut found = Vec::new();
                for entry in fs::read_dir(path).map_err(failed)? {
                    let file = entry.map_err(failed)?.path();
                    if file.extension().is_some_and(|extension| extension == "so") {
                        found.push(file);
                    }
                }
                found.sort();
                files.extend(found);
            }
        }
    }
    Ok(files)
}

fn describe(sources: &[Source]) -> String {
    if sources.is_empty() {
        return "neither a module nor a module directory is given".into();
    }
    let places = sources.iter().map(|source| match source {
        Source::Directory(path) => format!("no *.so in `{}`", path.display()),
        Source::File(path) => format!("none in `{}`", path.display()),
    });
    places.collect::<Vec<_>>().join(", ")
}

fn read(path: &Path) -> Result<Vec<u8>, InspectError> {
    // Asked before opening: opening a pipe waits for its writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(InspectError::NotAFile);
    }
    if metadata.len() > MODULE_BYTES_MAX {
        return Err(InspectError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MODULE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The kernel takes names of at most 249 bytes without a zero.
fn image(label: &str, bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let name: Vec<u8> = label.bytes().filter(|&b| b != 0).take(200).collect();
    let name = CString::new(name).expect("zeros were filtered out");
    memfd::from_bytes(&name, bytes)
}
