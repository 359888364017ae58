//! `microfaas.toml`: what may stand in it, and where. `microfaas.example.toml` explains each key.

mod section;
mod value;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use microfaas_http::Route;
use microfaas_node::{
    BUDGET_NS_MAX, Geometry, HOSTS_MAX, Limits, Loading, Policy, QUANTUM_NS_MIN, SUSPENDED_MAX, SocketConfig,
};
use thiserror::Error;

pub(crate) use section::suggest;
use section::{Place, Section};
pub(crate) use value::check_address;

/// A whole file. `None` is a key that was not given.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The file, where there is one.
    pub(crate) file: Option<PathBuf>,
    pub(crate) node: NodeSettings,
    pub(crate) http: HttpSettings,
    /// `None` where no hosts can attach.
    pub(crate) socket: Option<SocketSettings>,
    pub(crate) functions: Vec<FunctionSettings>,
    /// As it is written.
    written: toml::Table,
}

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

#[derive(Debug, Default)]
pub(crate) struct HttpSettings {
    pub(crate) listen: Option<String>,
    pub(crate) threads: Option<usize>,
    pub(crate) body_limit: Option<usize>,
    pub(crate) bodies_limit: Option<usize>,
    pub(crate) responses_limit: Option<usize>,
    pub(crate) head_limit: Option<usize>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) head_timeout: Option<Duration>,
    pub(crate) body_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) stop_timeout: Option<Duration>,
    pub(crate) max_deadline: Option<Duration>,
    pub(crate) access_log: Option<bool>,
    /// Where the metrics are; `None` in it is nowhere.
    pub(crate) metrics: Option<Option<String>>,
    pub(crate) expose_panics: Option<bool>,
    pub(crate) routes: Vec<(Route, usize)>,
}

/// `[socket]`.
#[derive(Debug, Default)]
pub(crate) struct SocketSettings {
    pub(crate) path: PathBuf,
    pub(crate) mode: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) users: Vec<u32>,
    pub(crate) groups: Vec<u32>,
    pub(crate) hosts_max: Option<u32>,
}

impl SocketSettings {
    /// What is not given is the node's default.
    pub(crate) fn config(&self) -> SocketConfig {
        let mut config = SocketConfig::new(&self.path);
        config = self.mode.into_iter().fold(config, SocketConfig::mode);
        config = self.group.into_iter().fold(config, SocketConfig::group);
        config = self.hosts_max.into_iter().fold(config, SocketConfig::hosts_max);
        config = self.users.iter().copied().fold(config, SocketConfig::allow_user);
        self.groups.iter().copied().fold(config, SocketConfig::allow_group)
    }
}

/// `[function.NAME]`.
#[derive(Debug)]
pub(crate) struct FunctionSettings {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) deadline: Option<Duration>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) quantum: Option<Duration>,
    pub(crate) budget: Option<Duration>,
    pub(crate) policy: Option<Policy>,
    pub(crate) stateful: Option<bool>,
    pub(crate) ban_after: Option<u32>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) load: Option<Loading>,
}

impl FunctionSettings {
    /// What is not given is the default, as far as what is given allows: a budget is at least the quantum.
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        // Both were checked to be at most an hour.
        let given = |time: Option<Duration>| time.and_then(|time| u64::try_from(time.as_nanos()).ok());
        let (quantum, budget) = (given(self.quantum), given(self.budget));
        let quantum_ns = quantum.unwrap_or(default.quantum_ns.min(budget.unwrap_or(u64::MAX)));
        Limits {
            quantum_ns,
            budget_ns: budget.unwrap_or(default.budget_ns.max(quantum_ns)),
            policy: self.policy.unwrap_or(default.policy),
            stateful: self.stateful.unwrap_or(default.stateful),
        }
    }
}

/// What is wrong with a file; prints as one line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    #[error("{}: cannot read it: {source}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {message}", file.display())]
    Syntax { file: PathBuf, line: usize, message: String },
    #[error("{}:{line}: unknown key `{key}` {section}{}", file.display(), suggest_text(suggestion.as_deref()))]
    UnknownKey { file: PathBuf, line: usize, key: String, section: String, suggestion: Option<String> },
    #[error("{}:{line}: `{key}` {section} {problem}", file.display())]
    Value { file: PathBuf, line: usize, key: String, section: String, problem: String },
    #[error("{}:{line}: [function.{name}] is for a function that no module has{}", file.display(), suggest_text(suggestion.as_deref()))]
    UnknownFunction { file: PathBuf, line: usize, name: String, suggestion: Option<String> },
    #[error("{}:{line}: a route leads to `{name}`, a function that no module has{}", file.display(), suggest_text(suggestion.as_deref()))]
    UnknownRouteFunction { file: PathBuf, line: usize, name: String, suggestion: Option<String> },
}

fn suggest_text(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |s| format!(", did you mean `{s}`?"))
}

impl Settings {
    /// Reads and checks a file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &text)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let place = Place { file, text };
        let document = place.parse()?;
        let mut root = Section::root(place, document.get_ref());
        let mut settings = Self { file: Some(file.to_owned()), ..Self::default() };
        if let Some(section) = root.section("node")? {
            settings.node = node(section)?;
        }
        if let Some(section) = root.section("http")? {
            settings.http = http(section)?;
        }
        if let Some(section) = root.section("socket")? {
            settings.socket = Some(socket(section)?);
        }
        if let Some(functions) = root.section("function")? {
            for section in functions.sections()? {
                settings.functions.push(self::function(&functions, section)?);
            }
        }
        root.finish()?;
        // What has come so far is valid.
        settings.written = toml::from_str(text).unwrap_or_default();
        Ok(settings)
    }

    /// The keys that are not as they were in `started`, of those that a reload does not put in force. A key that is not written is none that has its default.
    pub(crate) fn waiting_for_restart(&self, started: &Self) -> Vec<String> {
        let none = toml::Table::new();
        let mut changed = Vec::new();
        for section in ["node", "http", "socket"] {
            let of = |settings: &Self| {
                settings
                    .written
                    .get(section)
                    .and_then(toml::Value::as_table)
                    .cloned()
                    .unwrap_or_else(|| none.clone())
            };
            let (now, then) = (of(self), of(started));
            let keys: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
            let waits = |key: &&String| {
                now.get(*key) != then.get(*key) && !RELOADED.contains(&(section, key.as_str()))
            };
            changed.extend(keys.into_iter().filter(waits).map(|key| format!("[{section}] {key}")));
        }
        changed
    }

    /// Checks the names of functions against those that modules have.
    ///
    /// # Errors
    /// A setting or route of a function that is not there.
    pub(crate) fn check_functions(&self, known: &[String]) -> Result<(), ConfigError> {
        let Some(file) = &self.file else { return Ok(()) };
        for FunctionSettings { name, line, .. } in &self.functions {
            if !known.contains(name) {
                let suggestion = suggest(name, known.iter().map(String::as_str));
                return Err(ConfigError::UnknownFunction {
                    file: file.clone(),
                    line: *line,
                    name: name.clone(),
                    suggestion,
                });
            }
        }
        for (route, line) in &self.http.routes {
            if !known.iter().any(|name| name == route.function()) {
                let name = route.function().to_owned();
                let suggestion = suggest(&name, known.iter().map(String::as_str));
                return Err(ConfigError::UnknownRouteFunction {
                    file: file.clone(),
                    line: *line,
                    name,
                    suggestion,
                });
            }
        }
        Ok(())
    }
}

/// Keys that a reload puts in force, beside the tables of functions.
const RELOADED: [(&str, &str); 6] = [
    ("node", "modules"),
    ("node", "deadline"),
    ("node", "ban_after"),
    ("node", "load"),
    ("socket", "users"),
    ("socket", "groups"),
];
/// Most slots of both classes in one lane.
const SLOTS_MAX: u32 = 4096;
/// Most faults that a function may be allowed; 0 is any number.
const BAN_AFTER_MAX: u64 = 1_000_000;
/// Most calls of a function that may be on their way at once; 0 is any number.
const CONCURRENCY_MAX: u64 = 1_000_000;
/// Most replacements at once in ten seconds.
const RESTARTS_MAX: u64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const MS: Duration = Duration::from_millis(1);

fn node(mut section: Section<'_>) -> Result<NodeSettings, ConfigError> {
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

fn http(mut section: Section<'_>) -> Result<HttpSettings, ConfigError> {
    let timeout = |v: &toml::de::DeValue<'_>| value::duration(v, MS, DAY);
    let mut settings = HttpSettings {
        listen: section.get("listen", value::address)?,
        threads: section.get("threads", |v| value::count(v, 1, 256))?,
        body_limit: section.get("body_limit", |v| value::bytes(v, 0, 1 << 30, 1))?,
        bodies_limit: section.get("bodies_limit", |v| value::bytes(v, 0, 1 << 40, 1))?,
        responses_limit: section.get("responses_limit", |v| value::bytes(v, 64 << 10, 1 << 40, 1))?,
        head_limit: section.get("head_limit", |v| value::bytes(v, 8 << 10, 1 << 20, 1))?,
        max_connections: section.get("max_connections", |v| value::count(v, 1, 1_000_000))?,
        head_timeout: section.get("head_timeout", timeout)?,
        body_timeout: section.get("body_timeout", timeout)?,
        write_timeout: section.get("write_timeout", timeout)?,
        stop_timeout: section.get("stop_timeout", timeout)?,
        max_deadline: section.get("max_deadline", timeout)?,
        access_log: section.get("access_log", value::boolean)?,
        metrics: section.get("metrics", value::path_or_off)?,
        expose_panics: section.get("expose_panics", value::boolean)?,
        routes: Vec::new(),
    };
    for route in section.list_of_sections("routes")? {
        let new = self::route(route)?;
        if settings.routes.iter().any(|(old, _)| old.method() == new.0.method() && old.path() == new.0.path())
        {
            let problem = format!("has the path `{}` twice for the same method", new.0.path());
            return Err(section.value_error(new.1, "routes", problem));
        }
        settings.routes.push(new);
    }
    section.finish()?;
    Ok(settings)
}

fn socket(mut section: Section<'_>) -> Result<SocketSettings, ConfigError> {
    let id = |v: &toml::de::DeValue<'_>| value::count(v, 0, u64::from(u32::MAX) - 1);
    let folder = section.folder();
    let settings = SocketSettings {
        path: folder.join(section.require("path", value::text)?),
        mode: section.get("mode", value::mode)?,
        group: section.get("group", id)?,
        users: section.get("users", |v| value::list(v, id))?.unwrap_or_default(),
        groups: section.get("groups", |v| value::list(v, id))?.unwrap_or_default(),
        hosts_max: section.get("hosts_max", |v| value::count(v, 1, HOSTS_MAX.into()))?,
    };
    section.finish()?;
    Ok(settings)
}

fn route(mut section: Section<'_>) -> Result<(Route, usize), ConfigError> {
    let line = section.line();
    let method = section.get("method", value::text)?.unwrap_or_else(|| "*".to_owned());
    let path = section.require("path", value::text)?;
    let function = section.require("function", value::function_name)?;
    let route = Route::new(&method, &path, &function).map_err(|error| {
        let key = if matches!(error, microfaas_http::ConfigError::Method(_)) { "method" } else { "path" };
        section.value_error(line, key, format!("cannot be: {error}"))
    })?;
    section.finish()?;
    Ok((route, line))
}

fn function(all: &Section<'_>, mut section: Section<'_>) -> Result<FunctionSettings, ConfigError> {
    let name = section.name().to_owned();
    if !microfaas_abi::is_function_name(&name) {
        let problem = format!("is not a function name: {}", value::FUNCTION_NAME);
        return Err(all.value_error(section.line(), &name, problem));
    }
    let (shortest, longest) = (Duration::from_nanos(QUANTUM_NS_MIN), Duration::from_nanos(BUDGET_NS_MAX));
    let quantum = section.get("quantum", |v| value::duration(v, shortest, longest))?;
    let settings = FunctionSettings {
        name,
        line: section.line(),
        deadline: section.get("deadline", |v| value::duration(v, MS, DAY))?,
        idempotent: section.get("idempotent", value::boolean)?,
        quantum,
        budget: section.get("budget", |v| value::duration(v, quantum.unwrap_or(shortest), longest))?,
        policy: section.get("policy", value::policy)?,
        stateful: section.get("stateful", value::boolean)?,
        ban_after: section.get("ban_after", |v| value::count(v, 0, BAN_AFTER_MAX))?,
        concurrency: section.get("concurrency", |v| value::count(v, 0, CONCURRENCY_MAX))?,
        load: section.get("load", value::loading)?,
    };
    section.finish()?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(Path::new("dir/microfaas.toml"), text).map_err(|error| error.to_string())
    }

    fn check(text: &str, error: &str) {
        assert_eq!(parse(text).unwrap_err(), format!("dir/microfaas.toml:{error}"), "{text}");
    }

    #[test]
    fn the_example_is_valid_and_names_every_key() {
        let text = include_str!("../../microfaas.example.toml");
        let settings = parse(text).unwrap();
        assert_eq!(settings.node.modules, [Path::new("dir/modules")]);
        // Every key is explained, those that are commented out too.
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("#~ ").unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let NodeSettings {
            modules,
            workers: Some(_),
            pin: Some(_),
            spin: Some(_),
            deadline: Some(_),
            stall: Some(_),
            stop_timeout: Some(_),
            heartbeat: Some(_),
            restarts: Some(_),
            spares: Some(_),
            slots_small: Some(_),
            slots_large: Some(_),
            small_bytes: Some(_),
            large_bytes: Some(_),
            response_bytes: Some(_),
            stack_bytes: Some(_),
            arena_bytes: Some(_),
            init_bytes: Some(_),
            suspended_max: Some(_),
            load: Some(_),
            modules_bytes_max: Some(_),
            modules_max: Some(_),
            ban_after: Some(_),
        } = parse(&uncommented).unwrap().node
        else {
            panic!("a key of [node] is not in the example");
        };
        assert_eq!(modules.len(), 1);
        let HttpSettings {
            listen: Some(_),
            threads: Some(_),
            body_limit: Some(_),
            bodies_limit: Some(_),
            responses_limit: Some(_),
            head_limit: Some(_),
            max_connections: Some(_),
            head_timeout: Some(_),
            body_timeout: Some(_),
            write_timeout: Some(_),
            stop_timeout: Some(_),
            max_deadline: Some(_),
            access_log: Some(_),
            metrics: Some(Some(_)),
            expose_panics: Some(_),
            routes,
        } = parse(&uncommented).unwrap().http
        else {
            panic!("a key of [http] is not in the example");
        };
        assert_eq!(routes.len(), 2);
        let Some(SocketSettings {
            path,
            mode: Some(0o660),
            group: Some(_),
            users,
            groups,
            hosts_max: Some(HOSTS_MAX),
        }) = parse(&uncommented).unwrap().socket
        else {
            panic!("a key of [socket] is not in the example");
        };
        assert_eq!(path, Path::new("dir/microfaas.sock"));
        assert!(!users.is_empty() && !groups.is_empty());
        let function = &parse(&uncommented).unwrap().functions[0];
        let FunctionSettings {
            name: _,
            line: _,
            deadline: Some(_),
            idempotent: Some(_),
            quantum: Some(_),
            budget: Some(_),
            policy: Some(_),
            stateful: Some(_),
            ban_after: Some(_),
            concurrency: Some(_),
            load: Some(_),
        } = function
        else {
            panic!("a key of [function] is not in the example");
        };
        assert_eq!(function.limits(), Limits::default(), "the example shows the defaults");
    }

    #[test]
    fn a_function_has_the_core_for_as_long_as_it_may() {
        let limits = |keys: &str| parse(&format!("[function.f]\n{keys}")).unwrap().functions[0].limits();
        let default = Limits::default();
        assert_eq!(limits(""), default);
        let (quantum_ns, budget_ns) = (20_000, 2_000_000);
        assert_eq!(
            limits("quantum = \"20us\"\nbudget = \"2ms\"\npolicy = \"kill\"\nstateful = true"),
            Limits { quantum_ns, budget_ns, policy: Policy::Kill, stateful: true }
        );
        // The other of the two follows where its default would contradict.
        let five = 5_000_000_000;
        assert_eq!(limits("quantum = \"5s\""), Limits { quantum_ns: five, budget_ns: five, ..default });
        let short = 100_000;
        assert_eq!(limits("budget = \"100us\""), Limits { quantum_ns: short, budget_ns: short, ..default });
        for (keys, error) in [
            ("quantum = \"0s\"", "2: `quantum` in [function.f] is 0s, allowed are 20us to 1h"),
            ("budget = \"0s\"", "2: `budget` in [function.f] is 0s, allowed are 20us to 1h"),
            (
                "budget = \"1ms\"\nquantum = \"2ms\"",
                "2: `budget` in [function.f] is 1ms, allowed are 2ms to 1h",
            ),
            ("policy = \"fair\"", "2: `policy` in [function.f] is \"fair\", expected \"share\" or \"kill\""),
            ("policy = 1", "2: `policy` in [function.f] is an integer, expected \"share\" or \"kill\""),
        ] {
            check(&format!("[function.f]\n{keys}\n"), error);
        }
        check("[node]\nban_after = -1\n", "2: `ban_after` in [node] is -1, allowed are 0 to 1000000");
        check(
            "[function.f]\nban_after = 1000001\n",
            "2: `ban_after` in [function.f] is 1000001, allowed are 0 to 1000000",
        );
        check(
            "[node]\nsuspended_max = 1025\n",
            "2: `suspended_max` in [node] is 1025, allowed are 0 to 1024",
        );
        let range = "allowed are 65536 to";
        check(
            "[node]\nstack_bytes = 4096\n",
            &format!("2: `stack_bytes` in [node] is 4096 bytes, {range} 1073741824"),
        );
        check(
            "[node]\narena_bytes = 4096\n",
            &format!("2: `arena_bytes` in [node] is 4096 bytes, {range} 68719476736"),
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        check(
            "[node]\nworkers = 1\nwrokers = 2\n",
            "3: unknown key `wrokers` in [node], did you mean `workers`?",
        );
        check("[nod]\n", "1: unknown key `nod` at the top level, did you mean `node`?");
        check("\n[http]\nzzz = 1\n", "3: unknown key `zzz` in [http]");
        check("[function.hello]\nzone = \"a\"\n", "2: unknown key `zone` in [function.hello]");
        check(
            "[http]\nroutes = [\n  { path = \"/\", function = \"f\" },\n  { pth = \"/a\", function = \"f\" },\n]\n",
            "4: `path` in [http] routes is missing",
        );
        check(
            "[[http.routes]]\npath = \"/\"\nfunction = \"f\"\nverb = \"GET\"\n",
            "4: unknown key `verb` in [http] routes",
        );
    }

    #[test]
    fn a_value_out_of_range_says_the_range() {
        check(
            "[node]\nload = \"late\"\n",
            "2: `load` in [node] is \"late\", expected \"start\" or \"first-call\"",
        );
        check(
            "[function.f]\n\nload = true\n",
            "3: `load` in [function.f] is a boolean, expected \"start\" or \"first-call\"",
        );
        check(
            "[node]\nmodules_bytes_max = \"2048GiB\"\n",
            "2: `modules_bytes_max` in [node] is 2199023255552 bytes, allowed are 0 to 1099511627776",
        );
        check("[node]\nmodules_max = -1\n", "2: `modules_max` in [node] is -1, allowed are 0 to 4294967295");
        check("[node]\nworkers = 0\n", "2: `workers` in [node] is 0, allowed are 1 to 1024");
        check(
            "\n[node]\nslots_small = 4000\nslots_large = 97\n",
            "2: `slots_small` in [node] and `slots_large` are together 4097, allowed are at most 4096",
        );
        check("[node]\nworkers = -1\n", "2: `workers` in [node] is -1, allowed are 1 to 1024");
        check(
            "[node]\nworkers = \"2\"\n",
            "2: `workers` in [node] is a string, expected a number from 1 to 1024",
        );
        check(
            "[node]\nlarge_bytes = \"2GiB\"\n",
            "2: `large_bytes` in [node] is 2147483648 bytes, allowed are 4096 to 1073741824",
        );
        check(
            "[node]\nlarge_bytes = 5000\n",
            "2: `large_bytes` in [node] is 5000 bytes, which is not a multiple of 4096",
        );
        check(
            "[node]\ndeadline = 500\n",
            "2: `deadline` in [node] is an integer, expected a time such as \"500ms\" or \"2s\"",
        );
        check("[node]\nstall = \"1ms\"\n", "2: `stall` in [node] is 1ms, allowed are 10ms to 1day");
        check(
            "[http]\nbody_limit = \"16MB\"\n",
            "2: `body_limit` in [http] is \"16MB\", expected bytes such as 65536 or \"16MiB\" (KiB, MiB, GiB)",
        );
        check(
            "[http]\nlisten = \"8080\"\n",
            "2: `listen` in [http] is \"8080\", expected an address and port such as \"127.0.0.1:8080\"",
        );
        check("node = 1\n", "1: `node` at the top level is an integer, expected a table");
        check("[function]\nhello = 1\n", "2: `hello` in [function] is an integer, expected a table");
        check(
            "[function.Hello]\n",
            "1: `Hello` in [function] is not a function name: 1 to 64 of a-z, 0-9, -, _ and ., starting with a letter or digit",
        );
    }

    #[test]
    fn what_only_a_restart_puts_in_force_is_named() {
        let started = parse("[node]\nworkers = 1\nspin = \"50us\"\n[http]\naccess_log = true\n").unwrap();
        let waiting = |text: &str| parse(text).unwrap().waiting_for_restart(&started);
        assert_eq!(
            waiting(
                "[node]\nworkers = 2\nspin=\"50us\"\n[http]\nroutes = []\naccess_log = true\n[socket]\npath=\"s\"\n"
            ),
            ["[node] workers", "[http] routes", "[socket] path"]
        );
        assert_eq!(waiting("[node]\nworkers = 1\nspin = \"50us\"\n"), ["[http] access_log"]);
        let reloaded = "[node]\nworkers = 1\nspin = \"50us\"\nload = \"first-call\"\ndeadline = \"2s\"\nban_after = 3\nmodules = []\n";
        let reloaded = format!("{reloaded}[http]\naccess_log = true\n[function.f]\nstateful = true\n");
        assert_eq!(waiting(&reloaded), [""; 0]);
        check(
            "[node]\nstop_timeout = \"2days\"\n",
            "2: `stop_timeout` in [node] is 2days, allowed are 0s to 1day",
        );
    }

    #[test]
    fn who_may_attach_is_checked() {
        assert!(parse("[node]\n").unwrap().socket.is_none());
        check("[socket]\nmode = \"0660\"\n", "1: `path` in [socket] is missing");
        check(
            "[socket]\npath = \"s\"\nmode = \"rw\"\n",
            "3: `mode` in [socket] is \"rw\", expected permissions such as \"0660\"",
        );
        check(
            "[socket]\npath = \"s\"\nusers = [1, \"root\"]\n",
            "3: `users` in [socket] has a value that is a string, expected a number from 0 to 4294967294",
        );
        check(
            "[socket]\npath = \"s\"\nhosts_max = 128\n",
            "3: `hosts_max` in [socket] is 128, allowed are 1 to 127",
        );
    }

    #[test]
    fn routes_are_checked() {
        check(
            "[[http.routes]]\nmethod = \"FETCH\"\npath = \"/\"\nfunction = \"f\"\n",
            "1: `method` in [http] routes cannot be: method `FETCH` is not one of GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS or `*`",
        );
        check(
            "[http]\nroutes = [{ path = \"/a\", function = \"f\" }, { path = \"/a/\", function = \"g\" }]\n",
            "2: `routes` in [http] has the path `/a` twice for the same method",
        );
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let error = parse("[node]\nworkers = = 2\n").unwrap_err();
        assert!(error.starts_with("dir/microfaas.toml:2: ") && !error.contains('\n'), "{error}");
        let error = parse("[node]\nworkers = 1\nworkers = 2\n").unwrap_err();
        assert!(error.starts_with("dir/microfaas.toml:3: "), "{error}");
    }

    fn known(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn functions_that_are_not_there() {
        let settings = parse("[function.helo]\nidempotent = true\n").unwrap();
        let error = settings.check_functions(&known(&["hello", "sha512"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dir/microfaas.toml:1: [function.helo] is for a function that no module has, did you mean `hello`?"
        );
        let settings = parse("[http]\nroutes = [{ path = \"/\", function = \"x\" }]\n").unwrap();
        let error = settings.check_functions(&known(&["hello"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dir/microfaas.toml:2: a route leads to `x`, a function that no module has"
        );
        settings.check_functions(&known(&["x"])).unwrap();
    }
}
