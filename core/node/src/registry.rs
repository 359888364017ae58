//! Which functions there are, which image each module has, and what a change of them comes to. The supervisor owns it; others read the [`Catalog`].
//!
//! A name has a number that never changes. Each version of its function that workers may have has another, by which submissions name it; it is used
//! again, for the same name only, when no worker has that version any more. So a number that comes late, from a caller who was held up, means the right function
//! whatever was deployed meanwhile: workers hand such a call to the current version.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{SystemTime, UNIX_EPOCH};

use microfaas_control::admin::{Deployed, ModuleChange, ModuleInfo, Outcome};
use microfaas_control::{FunctionSpec, Load, Loading};

use crate::DeployError;
use crate::call::nanoseconds;
use crate::catalog::Catalog;
use crate::function::Settings;
use crate::image::Image;
use crate::names::{Entry, NAMES_MAX};
use crate::version::{Member, Part, Version};

/// What is wanted.
#[derive(Debug)]
pub(crate) enum Wish {
    /// These, beside the modules of other names.
    Put(Vec<Arc<Image>>),
    /// These and no others, with these settings.
    Exactly(Vec<Arc<Image>>, Settings),
    /// The image that the module had before.
    Rollback(String),
    /// Not this one.
    Remove(String),
}

/// What a wish comes to. Its versions have their numbers until it is carried out or [dropped](Registry::drop_version).
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) put: Vec<Arc<Version>>,
    gone: Vec<String>,
    unchanged: Vec<String>,
    settings: Option<Settings>,
}

/// Modules that were removed whose images are kept, for whoever wants one back: each holds a descriptor and its file's size in memory.
const REMOVED_MAX: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Every name that there ever was.
    names: HashMap<String, u32>,
    /// By name: every number that its versions have had.
    numbers: Vec<Vec<u32>>,
    /// Those of versions that workers may have.
    busy: HashSet<u32>,
    next_number: u32,
    next_part: u32,
    settings: Settings,
    active: BTreeMap<String, Arc<Version>>,
    previous: HashMap<String, Arc<Image>>,
    /// Modules that were removed and can be brought back, the oldest first; each with the image that it had before the one that it had last.
    removed: VecDeque<(String, Option<Arc<Image>>)>,
}

impl Registry {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            names: HashMap::new(),
            numbers: Vec::new(),
            busy: HashSet::new(),
            next_number: 0,
            next_part: 0,
            settings,
            active: BTreeMap::new(),
            previous: HashMap::new(),
            removed: VecDeque::new(),
        }
    }

    pub(crate) fn active(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.active.values()
    }

    /// The version of a module that is in use.
    pub(crate) fn active_of(&self, module: &str) -> Option<&Arc<Version>> {
        self.active.get(module)
    }

    /// What a wish comes to.
    ///
    /// # Errors
    /// [`DeployError`]; everything is as it was.
    pub(crate) fn plan(&mut self, wish: Wish) -> Result<Plan, DeployError> {
        let mut plan = Plan { put: Vec::new(), gone: Vec::new(), unchanged: Vec::new(), settings: None };
        let images = match wish {
            Wish::Put(images) => images,
            Wish::Exactly(images, settings) => {
                let stays = |name: &String| images.iter().any(|image| image.name == *name);
                plan.gone = self.active.keys().filter(|name| !stays(name)).cloned().collect();
                plan.settings = Some(settings);
                images
            }
            Wish::Rollback(name) => {
                let module = self.module_of(&name).ok_or(DeployError::Unknown { name })?;
                let image = self.previous.get(&module).ok_or(DeployError::NothingBefore { module })?;
                vec![Arc::clone(image)]
            }
            Wish::Remove(name) => {
                plan.gone.push(self.removable(name)?);
                Vec::new()
            }
        };
        let settings = plan.settings.as_ref().unwrap_or(&self.settings);
        let (unchanged, put) = images.into_iter().partition(|image| self.is_unchanged(image, settings));
        let (unchanged, put): (Vec<Arc<Image>>, Vec<Arc<Image>>) = (unchanged, put);
        plan.unchanged = unchanged.iter().map(|image| image.name.clone()).collect();
        self.check(&put, &plan)?;
        let settings = plan.settings.clone().unwrap_or_else(|| self.settings.clone());
        plan.put = put.into_iter().map(|image| Arc::new(self.version(image, &settings))).collect();
        Ok(plan)
    }

    /// The module of this name, with `.so` or without, or the one that has the function.
    fn module_of(&self, name: &str) -> Option<String> {
        let file = format!("{name}.so");
        let known = |module: &str| self.active.contains_key(module) || self.previous.contains_key(module);
        if let Some(module) = [name, &file].into_iter().find(|module| known(module)) {
            return Some(module.to_owned());
        }
        let has = |image: &Image| image.functions.iter().any(|function| function == name);
        let active = self.active.values().map(|version| &version.image);
        active.chain(self.previous.values()).find(|image| has(image)).map(|image| image.name.clone())
    }

    fn removable(&self, name: String) -> Result<String, DeployError> {
        let module = self.module_of(&name).filter(|module| self.active.contains_key(module));
        let Some(module) = module else { return Err(DeployError::Unknown { name }) };
        let functions = &self.active[&module].image.functions;
        if functions.len() > 1 && functions.contains(&name) && name != module {
            return Err(DeployError::NotAlone { name, module, functions: functions.len() });
        }
        Ok(module)
    }

    fn is_unchanged(&self, image: &Image, settings: &Settings) -> bool {
        self.active.get(&image.name).is_some_and(|version| {
            let of = |name: &String| settings.of(name);
            version.image.digest == image.digest
                && version
                    .members
                    .iter()
                    .map(|member| member.config.clone())
                    .eq(image.functions.iter().map(of))
        })
    }

    /// Whether workers have this image in use already, with other settings: those that load it have loaded it before, in the process that tries modules out or by
    /// themselves.
    pub(crate) fn is_proven(&self, version: &Version) -> bool {
        let loads = |of: &Version| of.parts.iter().any(|part| !part.is_lazy);
        let active = self.active.get(&version.image.name);
        active.is_some_and(|active| {
            active.image.digest == version.image.digest && (loads(active) || !loads(version))
        })
    }

    /// What would be afterwards must be consistent.
    fn check(&self, put: &[Arc<Image>], plan: &Plan) -> Result<(), DeployError> {
        let mut modules: BTreeMap<&str, &Image> = BTreeMap::new();
        for image in put {
            if let Some(first) = modules.insert(&image.name, image) {
                let (name, first, second) = (image.name.clone(), first.path.clone(), image.path.clone());
                return Err(DeployError::DuplicateModule { name, first, second });
            }
        }
        for (name, version) in &self.active {
            if !plan.gone.contains(name) {
                modules.entry(name).or_insert(&version.image);
            }
        }
        let mut owners: HashMap<&str, &Image> = HashMap::new();
        for image in modules.values() {
            for function in &image.functions {
                if let Some(first) = owners.insert(function, image) {
                    // The one that is there already is named first.
                    let (first, second) = if put.iter().any(|new| new.name == first.name) {
                        (*image, first)
                    } else {
                        (first, *image)
                    };
                    let (first, second) = (first.path.clone(), second.path.clone());
                    return Err(DeployError::DuplicateFunction { name: function.clone(), first, second });
                }
            }
        }
        if let Some(settings) = &plan.settings {
            let unknown = settings.functions.iter().find(|(name, _)| !owners.contains_key(name.as_str()));
            if let Some((name, _)) = unknown {
                return Err(DeployError::UnknownSettings { name: name.clone() });
            }
        }
        let new = owners.keys().filter(|name| !self.names.contains_key(**name)).count();
        if self.numbers.len() + new > NAMES_MAX {
            return Err(DeployError::TooManyNames { count: self.numbers.len() + new, max: NAMES_MAX });
        }
        Ok(())
    }

    /// Gives an image its numbers.
    fn version(&mut self, image: Arc<Image>, settings: &Settings) -> Version {
        let mut members = Vec::with_capacity(image.functions.len());
        let (mut stateful, mut others) = (Vec::new(), Vec::new());
        for name in &image.functions {
            let number = self.name(name);
            let (function, config) = (self.free_number(number), settings.of(name));
            let list = if config.limits.stateful { &mut stateful } else { &mut others };
            list.push(FunctionSpec {
                function,
                name: name.clone(),
                aliases: Vec::new(),
                limits: config.limits,
            });
            members.push(Member { name: number, function, config });
        }
        let mut parts = Vec::new();
        for (functions, is_stateful) in [(others, false), (stateful, true)] {
            if functions.is_empty() {
                continue;
            }
            let of_part = |member: &Member| functions.iter().any(|spec| spec.function == member.function);
            let mut members = members.iter().filter(|member| of_part(member));
            let is_lazy = members.all(|member| member.config.load == Some(Loading::FirstCall));
            let load = Load {
                module: self.next_part,
                label: image.name.clone(),
                image_bytes: image.bytes,
                stays: !is_lazy || is_stateful,
                functions,
            };
            parts.push(Part { load, is_lazy, lost: AtomicU32::new(0) });
            self.next_part = self.next_part.wrapping_add(1);
        }
        Version { image, members, parts, since: SystemTime::now() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).expect("there are at most NAMES_MAX names");
        self.names.insert(name.to_owned(), number);
        self.numbers.push(Vec::new());
        number
    }

    /// A number of that name for another version.
    fn free_number(&mut self, name: u32) -> u32 {
        let numbers = &mut self.numbers[name as usize];
        let free = numbers.iter().copied().find(|number| !self.busy.contains(number));
        let number = free.unwrap_or_else(|| {
            numbers.push(self.next_number);
            self.next_number += 1;
            self.next_number - 1
        });
        self.busy.insert(number);
        number
    }

    /// No worker has this version, nor will any: its numbers are free.
    pub(crate) fn drop_version(&mut self, version: &Version) {
        for member in &version.members {
            self.busy.remove(&member.function);
        }
    }

    /// What a worker is to be told that loads this part: late calls of its names go to it where no other version is in use.
    pub(crate) fn load(&self, version: &Version, part: u32) -> Option<Load> {
        let mut load = version.part(part)?.load.clone();
        for spec in &mut load.functions {
            let Some(member) = version.members.iter().find(|member| member.function == spec.function) else {
                continue;
            };
            if self.current(member.name).is_none_or(|current| current == member.function) {
                spec.aliases = self.others(member.name, member.function);
            }
        }
        Some(load)
    }

    /// Where calls of a version go that come late, now that it is not in use any more.
    pub(crate) fn successors(&self, version: &Version, part: u32) -> Vec<(u32, u32)> {
        let specs = || version.part(part).into_iter().flat_map(|part| &part.load.functions);
        let of_part = |member: &&Member| specs().any(|spec| spec.function == member.function);
        let mut pairs = Vec::new();
        for member in version.members.iter().filter(of_part) {
            if let Some(current) = self.current(member.name) {
                pairs.extend(self.others(member.name, current).into_iter().map(|number| (number, current)));
            }
        }
        pairs
    }

    /// All numbers of a name but this one.
    fn others(&self, name: u32, but: u32) -> Vec<u32> {
        self.numbers[name as usize].iter().copied().filter(|&number| number != but).collect()
    }

    /// The number of the version that new calls of a name get.
    fn current(&self, name: u32) -> Option<u32> {
        let members = self.active.values().flat_map(|version| &version.members);
        members.into_iter().find(|member| member.name == name).map(|member| member.function)
    }

    /// Puts a plan in force, and says what it has done. Returns the versions that are not in use any more, too.
    pub(crate) fn carry_out(&mut self, plan: Plan) -> (Deployed, Vec<Arc<Version>>) {
        let mut done = Deployed::default();
        let mut old = Vec::new();
        if let Some(settings) = plan.settings {
            self.settings = settings;
        }
        for name in plan.gone {
            let Some(version) = self.active.remove(&name) else { continue };
            done.modules.push(change(&name, Outcome::Removed, None, Some(&version)));
            let earlier = self.previous.insert(name.clone(), Arc::clone(&version.image));
            self.removed.push_back((name, earlier));
            old.push(version);
        }
        for version in plan.put {
            let name = version.image.name.clone();
            let before = self.active.insert(name.clone(), Arc::clone(&version));
            let outcome = if before.is_some() { Outcome::Replaced } else { Outcome::New };
            done.modules.push(change(&name, outcome, Some(&version), before.as_ref()));
            if let Some(before) = before {
                if before.image.digest != version.image.digest {
                    self.previous.insert(name, Arc::clone(&before.image));
                }
                old.push(before);
            } else if self.previous.get(&name).is_some_and(|last| last.digest == version.image.digest) {
                // It is as if it had not been removed.
                let earlier = self.removed.iter().find(|(removed, _)| *removed == name);
                match earlier.and_then(|(_, earlier)| earlier.clone()) {
                    Some(earlier) => self.previous.insert(name, earlier),
                    None => self.previous.remove(&name),
                };
            }
        }
        self.removed.retain(|(name, _)| !self.active.contains_key(name));
        while self.removed.len() > REMOVED_MAX
            && let Some((name, _)) = self.removed.pop_front()
        {
            self.previous.remove(&name);
        }
        for name in plan.unchanged {
            let version = self.active.get(&name);
            done.modules.push(change(&name, Outcome::Unchanged, version, version));
        }
        done.modules.sort_by(|a, b| a.module.cmp(&b.module));
        (done, old)
    }

    /// For [`Names`](crate::names::Names).
    pub(crate) fn entries(&self) -> Vec<Option<Entry>> {
        let mut entries = vec![None; self.numbers.len()];
        for version in self.active.values() {
            for member in &version.members {
                entries[member.name as usize] = Some(Entry {
                    function: member.function,
                    deadline_ns: member.config.deadline.map_or(u64::MAX, nanoseconds),
                    concurrency: member.config.concurrency,
                    is_lazy: version.is_lazy(member.function),
                    is_idempotent: member.config.idempotent,
                });
            }
        }
        entries
    }

    pub(crate) fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, version) in &self.active {
            for (function, member) in version.image.functions.iter().zip(&version.members) {
                catalog.by_name.insert(function.clone(), member.name);
                catalog.functions.push(version.info(function, member));
            }
            let since = version.since.duration_since(UNIX_EPOCH).unwrap_or_default();
            catalog.modules.push(ModuleInfo {
                name: name.clone(),
                path: version.image.path.display().to_string(),
                digest: version.image.digest.to_string(),
                bytes: version.image.bytes,
                deployed_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
                functions: version.image.functions.clone(),
                previous: self.previous.get(name).map(|image| image.digest.to_string()),
                load: if version.parts.iter().all(|part| part.is_lazy) {
                    Loading::FirstCall
                } else {
                    Loading::Start
                },
                loaded_in: 0,
                workers: 0,
            });
            catalog.parts.push(version.parts().collect());
        }
        catalog.functions.sort_by_key(|info| info.id);
        catalog.owners.resize(self.next_number as usize, String::new());
        for (name, id) in &self.names {
            for number in &self.numbers[*id as usize] {
                catalog.owners[*number as usize].clone_from(name);
            }
        }
        catalog
    }
}

fn change(
    module: &str,
    outcome: Outcome,
    now: Option<&Arc<Version>>,
    before: Option<&Arc<Version>>,
) -> ModuleChange {
    let digest = |version: &Arc<Version>| version.image.digest.to_string();
    ModuleChange {
        module: module.to_owned(),
        outcome,
        digest: now.map(digest),
        before: before.map(digest),
        functions: now.or(before).map_or(0, |version| version.image.functions.len()),
    }
}
