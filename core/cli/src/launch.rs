//! From the command line and the settings to a node.

use std::path::{Path, PathBuf};

use microfaas_node::{Deployed, FunctionConfig, Geometry, Node, NodeBuilder, Reload};

use crate::args::Sources;
use crate::config::{NodeSettings, Settings, SocketSettings};
use crate::failure::Failure;

const SETTINGS: &str = "microfaas.toml";
const MODULES: &str = "modules";

/// The settings, with the directories of modules that hold.
pub(crate) fn settings(sources: &Sources) -> Result<Settings, Failure> {
    settings_of(sources, sources.config.as_deref())
}

fn settings_of(sources: &Sources, file: Option<&Path>) -> Result<Settings, Failure> {
    let mut settings = read_settings(file)?;
    if !sources.modules.is_empty() {
        settings.node.modules.clone_from(&sources.modules);
    }
    if settings.node.modules.is_empty() {
        if !Path::new(MODULES).is_dir() {
            return Err(Failure::NoModules);
        }
        settings.node.modules.push(MODULES.into());
    }
    Ok(settings)
}

/// The settings as they are written.
pub(crate) fn read_settings(file: Option<&Path>) -> Result<Settings, Failure> {
    Ok(match file {
        Some(file) => Settings::read(file)?,
        None if Path::new(SETTINGS).exists() => Settings::read(Path::new(SETTINGS))?,
        None => Settings::default(),
    })
}

/// Puts the modules, the settings of functions and the list of who may attach as they are now in place of those that the node has. Gives the settings beside what was done.
///
/// # Errors
/// Any mistake in them, or that the file is gone by which the node was `started`; the node has what it had then.
pub(crate) fn reload(
    node: &Node,
    sources: &Sources,
    started: &Settings,
) -> Result<(Deployed, Settings), Failure> {
    let settings = settings_of(sources, sources.config.as_deref().or(started.file.as_deref()))?;
    if let Some(known) = known_functions(&settings.node.modules) {
        settings.check_functions(&known)?;
    }
    let NodeSettings { deadline, ban_after, load, .. } = settings.node;
    let mut reload = settings.node.modules.iter().fold(Reload::default(), |reload, dir| reload.modules(dir));
    if let Some(deadline) = deadline {
        reload = reload.deadline_default(deadline);
    }
    reload = reload.ban_after(ban_after.unwrap_or_default()).load_default(load.unwrap_or_default());
    for (name, config) in function_configs(&settings) {
        reload = reload.function(name, config);
    }
    let deployed = node.reload(reload)?;
    // Without the table nobody is named; the node may have a socket all the same, from the command line.
    let (users, groups) = settings
        .socket
        .as_ref()
        .map_or_else(Default::default, |socket| (socket.users.clone(), socket.groups.clone()));
    node.admit_hosts(users, groups);
    Ok((deployed, settings))
}

fn function_configs(settings: &Settings) -> impl Iterator<Item = (&str, FunctionConfig)> {
    settings.functions.iter().map(|function| {
        let mut config = FunctionConfig::default()
            .idempotent(function.idempotent.unwrap_or_default())
            .limits(function.limits())
            .concurrency(function.concurrency.unwrap_or_default());
        config.deadline = function.deadline;
        config.ban_after = function.ban_after;
        config.load = function.load;
        (function.name.as_str(), config)
    })
}

/// Starts a node.
///
/// # Errors
/// Any mistake in the settings or modules, before a worker is started; then what keeps a worker from starting.
pub(crate) fn node(settings: &Settings) -> Result<Node, Failure> {
    if let Some(known) = known_functions(&settings.node.modules) {
        settings.check_functions(&known)?;
    }
    let NodeSettings { workers, pin, spin, deadline, stall, stack_bytes, arena_bytes, .. } = settings.node;
    let NodeSettings { heartbeat, restarts, spares, init_bytes, suspended_max, ban_after, .. } =
        settings.node;
    let NodeSettings { load, modules_bytes_max, modules_max, .. } = settings.node;
    let mut builder = settings.node.modules.iter().fold(Node::builder(), |builder, dir| builder.modules(dir));
    // What was not given stays the node's default.
    builder = given(builder, workers, NodeBuilder::workers);
    builder = given(builder, pin, NodeBuilder::pin);
    builder = given(builder, spin, NodeBuilder::spin);
    builder = given(builder, deadline, NodeBuilder::deadline_default);
    builder = given(builder, stall, NodeBuilder::stall);
    builder = given(builder, heartbeat, NodeBuilder::heartbeat);
    builder = given(builder, restarts, NodeBuilder::restarts);
    builder = given(builder, spares, NodeBuilder::spares);
    builder = given(builder, stack_bytes, NodeBuilder::stack_bytes);
    builder = given(builder, arena_bytes, NodeBuilder::arena_bytes);
    builder = given(builder, init_bytes, NodeBuilder::init_bytes);
    builder = given(builder, suspended_max, NodeBuilder::suspended_max);
    builder = given(builder, load, NodeBuilder::load_default);
    builder = given(builder, modules_bytes_max, NodeBuilder::modules_bytes_max);
    builder = given(builder, modules_max, NodeBuilder::modules_max);
    builder = given(builder, ban_after, NodeBuilder::ban_after);
    builder = builder.geometry(geometry(&settings.node));
    builder = given(builder, settings.socket.as_ref().map(SocketSettings::config), NodeBuilder::socket);
    for (name, config) in function_configs(settings) {
        builder = builder.function(name, config);
    }
    Ok(builder.start()?)
}

fn given<T>(builder: NodeBuilder, value: Option<T>, set: fn(NodeBuilder, T) -> NodeBuilder) -> NodeBuilder {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

fn geometry(node: &NodeSettings) -> Geometry {
    let default = Geometry::default();
    Geometry {
        small_slots: node.slots_small.unwrap_or(default.small_slots),
        large_slots: node.slots_large.unwrap_or(default.large_slots),
        small_bytes: node.small_bytes.unwrap_or(default.small_bytes),
        large_bytes: node.large_bytes.unwrap_or(default.large_bytes),
        response_bytes: node.response_bytes.unwrap_or(default.response_bytes),
    }
}

/// What the modules say that they have. `None` if one cannot be read: the node says what is wrong with it.
fn known_functions(dirs: &[PathBuf]) -> Option<Vec<String>> {
    let mut known = Vec::new();
    for dir in dirs {
        for entry in dir.read_dir().ok()? {
            let path = entry.ok()?.path();
            if path.extension().is_some_and(|extension| extension == "so") {
                known.extend(microfaas_build::inspect(&path).ok()?.functions);
            }
        }
    }
    Some(known)
}
