//! `[node]`: workers, lanes, and what calls may use.

use std::path::PathBuf;
use std::time::Duration;

use microfaas_node::{Geometry, Loading, SUSPENDED_MAX};

use super::section::Section;
use super::{BAN_AFTER_MAX, ConfigError, DAY, MS, value};

/// Most slots of both classes in one lane.
const SLOTS_MAX: u32 = 4096;
/// Most replacements at once in ten seconds.
const RESTARTS_MAX: u64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// `[node]`.
#[derive(Debug, Default)]
pub(crate) struct NodeSettings {
    pub(crate) modules: Vec<PathBuf>,
    pub(crate) workers: Option<u32>,
    pub(crate) pin: Option<bool>,
    pub(crate) spin: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) stall: Option<Duration>,
    pub(crate) stop_timeout: Option<Duration>,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) restarts: Option<u32>,
    pub(crate) spares: Option<u32>,
    pub(crate) slots_small: Option<u32>,
    pub(crate) slots_large: Option<u32>,
    pub(crate) small_bytes: Option<u32>,
    pub(crate) large_bytes: Option<u32>,
    pub(crate) response_bytes: Option<u32>,
    pub(crate) stack_bytes: Option<u64>,
    pub(crate) arena_bytes: Option<u64>,
    pub(crate) init_bytes: Option<u64>,
    pub(crate) suspended_max: Option<u32>,
    pub(crate) load: Option<Loading>,
    pub(crate) modules_bytes_max: Option<u64>,
    pub(crate) modules_max: Option<u32>,
    pub(crate) ban_after: Option<u32>,
}

pub(super) fn node(mut section: Section<'_>) -> Result<NodeSettings, ConfigError> {
    let folder = section.folder();
    let settings = NodeSettings {
        modules: section
            .get("modules", value::texts)?
            .unwrap_or_default()
            .into_iter()
            .map(|path| folder.join(path))
            .collect(),
        workers: section.get("workers", |v| value::count(v, 1, 1024))?,
        pin: section.get("pin", value::boolean)?,
        spin: section.get("spin", |v| value::duration(v, Duration::ZERO, SECOND))?,
        deadline: section.get("deadline", |v| value::duration(v, MS, DAY))?,
        stall: section.get("stall", |v| value::duration(v, 10 * MS, DAY))?,
        stop_timeout: section.get("stop_timeout", |v| value::duration(v, Duration::ZERO, DAY))?,
        heartbeat: section.get("heartbeat", |v| value::duration(v, 10 * MS, DAY))?,
        restarts: section.get("restarts", |v| value::count(v, 0, RESTARTS_MAX))?,
        spares: section.get("spares", |v| value::count(v, 0, 64))?,
        slots_small: section.get("slots_small", |v| value::count(v, 1, SLOTS_MAX.into()))?,
        slots_large: section.get("slots_large", |v| value::count(v, 0, u64::from(SLOTS_MAX) - 1))?,
        small_bytes: section.get("small_bytes", |v| value::bytes(v, 256, 64 << 10, 64))?,
        large_bytes: section.get("large_bytes", |v| value::bytes(v, 4096, 1 << 30, 4096))?,
        response_bytes: section.get("response_bytes", |v| value::bytes(v, 4096, 1 << 30, 4096))?,
        stack_bytes: section.get("stack_bytes", |v| value::bytes(v, 64 << 10, 1 << 30, 4096))?,
        arena_bytes: section.get("arena_bytes", |v| value::bytes(v, 64 << 10, 64 << 30, 4096))?,
        init_bytes: section.get("init_bytes", |v| value::bytes(v, 64 << 10, 64 << 30, 4096))?,
        suspended_max: section.get("suspended_max", |v| value::count(v, 0, SUSPENDED_MAX.into()))?,
        load: section.get("load", value::loading)?,
        modules_bytes_max: section.get("modules_bytes_max", |v| value::bytes(v, 0, 1 << 40, 1))?,
        modules_max: section.get("modules_max", |v| value::count(v, 0, u32::MAX.into()))?,
        ban_after: section.get("ban_after", |v| value::count(v, 0, BAN_AFTER_MAX))?,
    };
    let default = Geometry::default();
    let slots = settings.slots_small.unwrap_or(default.small_slots)
        + settings.slots_large.unwrap_or(default.large_slots);
    if slots > SLOTS_MAX {
        let problem = format!("and `slots_large` are together {slots}, allowed are at most {SLOTS_MAX}");
        return Err(section.value_error(section.line(), "slots_small", problem));
    }
    section.finish()?;
    Ok(settings)
}
