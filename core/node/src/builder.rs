//! Settings of a node, and its start: everything is checked before anything is made.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use microfaas_control::sandbox::SandboxPolicy;
use microfaas_control::{BUDGET_NS_MAX, Limits, Loading, QUANTUM_NS_MIN, SUSPENDED_MAX};
use microfaas_lane::layout::Geometry;
use microfaas_sys::program::Program;
use microfaas_sys::{affinity, namespaces, privileges};

use crate::attach::door::Door;
use crate::attach::server::{Server, Terms};
use crate::attach::{HOSTS_MAX, SocketConfig};
use crate::call::nanoseconds;
use crate::find_worker;
use crate::function::{FunctionConfig, Settings};
use crate::hub::Hub;
use crate::image::Source;
use crate::launch::Plan;
use crate::node::Shared;
use crate::rollout::Rollout;
use crate::seat::Seat;
use crate::supervisor::{Patience, Supervisor};
use crate::{DeployError, Node, NodeError, deploy};

const WORKERS: RangeInclusive<u64> = 1..=1024;
const SPARES: RangeInclusive<u64> = 0..=64;
const STACK_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 30;
const ARENA_BYTES: RangeInclusive<u64> = 64 << 10..=64 << 30;
/// 0 is no limit.
const MODULES_BYTES: RangeInclusive<u64> = 0..=1 << 40;
const SPIN_NS: RangeInclusive<u64> = 0..=1_000_000_000;
const HEARTBEAT_NS: RangeInclusive<u64> = 10_000_000..=u64::MAX;
/// A deadline of nothing would never let a call start.
const DEADLINE_NS: RangeInclusive<u64> = 1..=u64::MAX;
/// How long the start of a node waits for the namespaces of its workers, before they are left to these. See `SEALED_WITHIN` in `launch`.
const MADE_WITHIN: Duration = Duration::from_secs(60);
/// How long a caller waits who sets no deadline.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Settings of a new node; every one has a default but where its modules are.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `start`"]
pub struct NodeBuilder {
    sources: Vec<Source>,
    functions: Vec<(String, FunctionConfig)>,
    workers: Option<u32>,
    pin: bool,
    geometry: Geometry,
    deadline: Duration,
    spin: Duration,
    stall: Duration,
    heartbeat: Duration,
    restarts: u32,
    spares: u32,
    stack_bytes: u64,
    arena_bytes: u64,
    init_bytes: u64,
    suspended_max: u32,
    modules_bytes_max: u64,
    modules_max: u32,
    load_default: Loading,
    ban_after: u32,
    sandbox: SandboxPolicy,
    worker_binary: Option<PathBuf>,
    worker_env: Vec<(OsString, OsString)>,
    socket: Option<SocketConfig>,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            functions: Vec::new(),
            workers: None,
            pin: true,
            geometry: Geometry::default(),
            deadline: DEADLINE,
            spin: Duration::from_micros(50),
            stall: Duration::from_secs(1),
            heartbeat: Duration::from_secs(2),
            restarts: 5,
            spares: 1,
            stack_bytes: 1 << 20,
            arena_bytes: 128 << 20,
            init_bytes: 64 << 20,
            suspended_max: 32,
            modules_bytes_max: 0,
            modules_max: 0,
            load_default: Loading::Start,
            ban_after: 0,
            sandbox: SandboxPolicy::default(),
            worker_binary: None,
            worker_env: Vec::new(),
            socket: None,
        }
    }
}

impl NodeBuilder {
    /// Adds every `*.so` in a directory, in the order of their names. May be called again.
    pub fn modules(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::Directory(directory.into()));
        self
    }

    /// Adds one module. May be called again.
    pub fn module(mut self, file: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::File(file.into()));
        self
    }

    /// Settings of one function.
    pub fn function(mut self, name: impl Into<String>, config: FunctionConfig) -> Self {
        self.functions.push((name.into(), config));
        self
    }

    /// How many workers, 1 to 1024. Default: one for each core that this process may use but one, at least one.
    pub fn workers(mut self, count: u32) -> Self {
        self.workers = Some(count);
        self
    }

    /// Whether each worker is pinned to a core of its own, from the last allowed one down, as far as there are any. Default: yes.
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// Sizes of the lanes.
    pub fn geometry(mut self, geometry: Geometry) -> Self {
        self.geometry = geometry;
        self
    }

    /// Slots for small and for large requests of each worker: that many calls can be on their way to it.
    pub fn slots(mut self, small: u32, large: u32) -> Self {
        (self.geometry.small_slots, self.geometry.large_slots) = (small, large);
        self
    }

    /// Bytes of a small request, body and metadata.
    pub fn small_bytes(mut self, bytes: u32) -> Self {
        self.geometry.small_bytes = bytes;
        self
    }

    /// Most bytes of any request, body and metadata.
    pub fn large_bytes(mut self, bytes: u32) -> Self {
        self.geometry.large_bytes = bytes;
        self
    }

    /// Most bytes of any response, body and metadata.
    pub fn response_bytes(mut self, bytes: u32) -> Self {
        self.geometry.response_bytes = bytes;
        self
    }

    /// How long a caller waits who sets no deadline. Default: 30 s. [`Duration::MAX`] is no limit.
    pub fn deadline_default(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Longest spin before sleeping, of workers and of waiting callers; at most 1 s. Default: 50 us.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// How long after a call's deadline its worker may still be busy with it; then it counts as hung and is replaced. Default: 1 s.
    pub fn stall(mut self, grace: Duration) -> Self {
        self.stall = grace;
        self
    }

    /// How long a worker with calls in its hands may complete none before it is asked for a sign of life, and how long it may take to give one; then it counts as
    /// hung and is replaced, whatever the deadlines of its calls. From 10 ms. Default: 2 s. [`Duration::MAX`] is for ever.
    pub fn heartbeat(mut self, time: Duration) -> Self {
        self.heartbeat = time;
        self
    }

    /// How often within ten seconds a worker that has ended is replaced at once. More ends than that wait for their replacements: 100 ms, then twice as long each time, up to
    /// 10 s. Default: 5.
    pub fn restarts(mut self, count: u32) -> Self {
        self.restarts = count;
        self
    }

    /// How many processes, up to 64, have all modules loaded and wait for a worker to end, so that one of them takes its place in well under a millisecond where a new process
    /// takes several. Each costs the memory of a worker that does nothing, and no core time. 0 for none. Default: 1.
    pub fn spares(mut self, count: u32) -> Self {
        self.spares = count;
        self
    }

    /// Bytes of a call's stack, 64 KiB to 1 GiB. Default: 1 MiB.
    pub fn stack_bytes(mut self, bytes: u64) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// Most heap bytes of one call, from 64 KiB. Default: 64 MiB.
    pub fn arena_bytes(mut self, bytes: u64) -> Self {
        self.arena_bytes = bytes;
        self
    }

    /// Most heap bytes that a module's `init` may keep, from 64 KiB. Default: 64 MiB.
    pub fn init_bytes(mut self, bytes: u64) -> Self {
        self.init_bytes = bytes;
        self
    }

    /// Most calls that a worker may have suspended at once, 0 to 1024. One function has at most half of them, and one: 17 of 32; two have three quarters. Others of it that
    /// come wait until one of those ends, however short they are. Each takes 2 KiB of a worker while it was never needed, and up to 4 MiB of heap and
    /// a copy of its module's writable memory afterwards. Default: 32.
    pub fn suspended_max(mut self, count: u32) -> Self {
        self.suspended_max = count;
        self
    }

    /// When modules are loaded whose functions' own settings do not say. Default: when a worker starts.
    pub fn load_default(mut self, when: Loading) -> Self {
        self.load_default = when;
        self
    }

    /// Most bytes of loaded modules in each worker, up to 1 TiB: images, the copies of what is reset, and what `init` has allocated; 0 for no limit. Where the load of a
    /// module would pass it, others that are [loaded when they are called](Loading::FirstCall) are unloaded before, the least recently used first: they are cold then,
    /// and their next call loads them again. Modules that are loaded at the start, those with calls in hand and those that keep state count, and stay. A module that
    /// takes more by itself cannot be loaded, so it is not deployed. Default: 0.
    pub fn modules_bytes_max(mut self, bytes: u64) -> Self {
        self.modules_bytes_max = bytes;
        self
    }

    /// Most loaded modules in each worker, kept to as [`modules_bytes_max`](Self::modules_bytes_max) is; 0 for no limit. Default: 0.
    pub fn modules_max(mut self, count: u32) -> Self {
        self.modules_max = count;
        self
    }

    /// How many calls of a function may end FAULT or DENIED before the function is [banned](Node::bans), where its own settings do not say. Default: 0, never, since whoever may call
    /// a function may know a request that makes it fault. A function that breaks memory safety is banned at once, with its module.
    pub fn ban_after(mut self, faults: u32) -> Self {
        self.ban_after = faults;
        self
    }

    /// What workers give up before the first code of a function runs. Default: everything that the kernel grants.
    pub fn sandbox(mut self, policy: SandboxPolicy) -> Self {
        self.sandbox = policy;
        self
    }

    /// The worker's program, of the same build as the node. Default: see [`WORKER_VARIABLE`](crate::WORKER_VARIABLE). All workers of a node are of the program that is
    /// there when it is started, also those that are started after another build was installed.
    pub fn worker_binary(mut self, program: impl Into<PathBuf>) -> Self {
        self.worker_binary = Some(program.into());
        self
    }

    /// Lets hosts in other processes attach, by [`Node::connect`]. A socket that a node has left there is replaced; one that a node listens on is an error.
    pub fn socket(mut self, socket: impl Into<SocketConfig>) -> Self {
        self.socket = Some(socket.into());
        self
    }

    /// For tests: adds a variable to the workers' environment, which is empty otherwise. It also goes to replacements.
    pub fn worker_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.worker_env.push((name.into(), value.into()));
        self
    }

    /// Checks all settings, reads the modules, starts the workers and waits until every one of them serves.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running then.
    pub fn start(self) -> Result<Node, NodeError> {
        let cpus = affinity::allowed()
            .map_err(|source| NodeError::System { what: "cannot tell which cores are allowed", source })?;
        let workers =
            self.workers.unwrap_or_else(|| u32::try_from(cpus.len().max(2) - 1).unwrap_or(1).min(1024));
        self.check(workers)?;
        let settings = Settings {
            functions: self.functions,
            deadline: self.deadline,
            ban_after: self.ban_after,
            load: self.load_default,
        };
        check_settings(&settings)?;
        let (registry, versions) = deploy::first(&self.sources, settings)?;
        let program = find_worker::find(self.worker_binary.as_deref())?;
        let program = Program::hold(&program)
            .map_err(|source| NodeError::System { what: "cannot open the worker's program", source })?;

        let spin_ns = nanoseconds(self.spin);
        let hub = Hub::new(spin_ns)
            .map_err(|source| NodeError::System { what: "cannot make the event descriptors", source })?;
        let cpu = |i: u32| self.pin.then(|| cpus.iter().rev().nth(i as usize).copied()).flatten();
        let seats = (0..workers).map(|i| Seat::new(i, cpu(i))).collect();
        let (shared, inbox) = Shared::new(seats, Arc::new(hub));
        registry.publish(&shared, &versions);
        let plan = Plan {
            program,
            env: self.worker_env,
            geometry: self.geometry,
            spin_ns,
            stack_bytes: self.stack_bytes,
            arena_bytes: self.arena_bytes,
            init_bytes: self.init_bytes,
            suspended_max: self.suspended_max,
            modules_bytes_max: self.modules_bytes_max,
            modules_max: self.modules_max,
            namespaces: shared_namespaces(self.sandbox),
            sandbox: self.sandbox,
        };
        let stall_ns = nanoseconds(self.stall);
        let server = match &self.socket {
            Some(socket) => {
                let terms = Terms { geometry: self.geometry, spin_ns, stall_ns, hosts_max: socket.hosts_max };
                let server = Server::new(Arc::clone(&shared), terms, Door::open(socket)?);
                Some(server.map_err(|source| NodeError::System { what: "cannot listen for hosts", source })?)
            }
            None => None,
        };
        let (started, outcome) = mpsc::sync_channel(1);
        let rollout = Rollout::new(registry, Arc::clone(&shared.stock));
        let supervisor = {
            let patience = Patience {
                stall_ns,
                heartbeat: self.heartbeat,
                restarts: self.restarts,
                spares: self.spares,
            };
            Supervisor::new(Arc::clone(&shared), plan, rollout, patience, inbox, started)
        };
        let thread = spawn("microfaas-node", move || supervisor.run())?;
        let node = Node::new(shared, thread);
        outcome.recv().expect("the supervisor reports once before it ends")?;
        if let Some(server) = server {
            node.serves_hosts(spawn("microfaas-hosts", move || server.run())?);
        }
        Ok(node)
    }

    fn check(&self, workers: u32) -> Result<(), NodeError> {
        self.geometry.check()?;
        let fields = [
            ("workers", u64::from(workers), WORKERS),
            ("spares", u64::from(self.spares), SPARES),
            ("stack_bytes", self.stack_bytes, STACK_BYTES),
            ("arena_bytes", self.arena_bytes, ARENA_BYTES),
            ("init_bytes", self.init_bytes, ARENA_BYTES),
            ("suspended_max", u64::from(self.suspended_max), 0..=u64::from(SUSPENDED_MAX)),
            ("modules_bytes_max", self.modules_bytes_max, MODULES_BYTES),
            ("spin (ns)", nanoseconds(self.spin), SPIN_NS),
            ("heartbeat (ns)", nanoseconds(self.heartbeat), HEARTBEAT_NS),
            (
                "hosts_max",
                self.socket.as_ref().map_or(1, |socket| socket.hosts_max.into()),
                1..=HOSTS_MAX.into(),
            ),
        ];
        let out = fields.into_iter().find(|(_, value, allowed)| !allowed.contains(value));
        out.map_or(Ok(()), |(field, value, allowed)| {
            Err(NodeError::Range { field, value, min: *allowed.start(), max: *allowed.end() })
        })
    }
}

/// What workers join when they seal themselves in: it costs them nothing then, and the kernel nothing when they end.
fn shared_namespaces(sandbox: SandboxPolicy) -> Option<Arc<namespaces::Shared>> {
    let made = sandbox.enabled.then(|| namespaces::Shared::make(!privileges::is_root(), MADE_WITHIN))?;
    made.map(Arc::new)
        .inspect_err(|error| {
            tracing::info!(%error, "namespaces for all workers are refused, each tries to make its own");
        })
        .ok()
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, NodeError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|source| NodeError::System { what: "cannot start a thread of the node", source })
}

/// Whether all settings of functions are in their ranges.
pub(crate) fn check_settings(settings: &Settings) -> Result<(), DeployError> {
    let default = [("deadline_default (ns)", nanoseconds(settings.deadline), DEADLINE_NS)];
    let functions = settings.functions.iter().flat_map(|(_, config)| {
        let Limits { quantum_ns, budget_ns, .. } = config.limits;
        let deadline = config.deadline.unwrap_or(settings.deadline);
        [
            ("deadline (ns)", nanoseconds(deadline), DEADLINE_NS),
            ("budget (ns)", budget_ns, QUANTUM_NS_MIN..=BUDGET_NS_MAX),
            ("quantum (ns)", quantum_ns, QUANTUM_NS_MIN..=budget_ns),
        ]
    });
    let out = default.into_iter().chain(functions).find(|(_, value, allowed)| !allowed.contains(value));
    out.map_or(Ok(()), |(field, value, allowed)| {
        Err(DeployError::Range { field, value, min: *allowed.start(), max: *allowed.end() })
    })
}
