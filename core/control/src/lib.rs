//! What a node and a worker say to each other off the data path.
//!
//! The node starts a worker with one end of a `SOCK_SEQPACKET` socket pair as descriptor [`CONTROL_FD`]. Each packet is one JSON
//! message of at most [`PACKET_BYTES_MAX`] bytes; descriptors travel beside it (`SCM_RIGHTS`) in the order that
//! the message's documentation gives. The node sends [`Start`](ToWorker::Start), [`AddLane`](ToWorker::AddLane) and
//! [`Seal`](ToWorker::Seal) once, then any number of [`Load`](ToWorker::Load) and [`Serve`](ToWorker::Serve); the worker answers each with exactly one [`ToNode`], and says a few that answer nothing. The worker looks at the socket when a lane's control
//! count has moved (see `docs/protocol.md` of the lane), never on the path of a call.
//!
//! The node distrusts what a worker says here as it does in the lane: a packet that does not parse, or
//! answers no question, gets the worker killed.
#![forbid(unsafe_code)]

pub mod admin;
pub mod attach;
pub mod rate;
pub mod sandbox;
pub mod stats;

use microfaas_lane::layout::Geometry;
use serde::{Deserialize, Serialize};

use crate::sandbox::{SandboxPolicy, SandboxReport};

/// The version, and a digest of the sources of what a node and a worker say to each other: in messages, in lanes, in what is counted. A node gives it to its workers as their
/// one argument, since programs that differ here may not understand each other's messages, nor that they do not.
pub const BUILD: &str = env!("MICROFAAS_BUILD");
/// Descriptor number of the control socket in a new worker.
pub const CONTROL_FD: i32 = 3;
/// Most bytes in one packet.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;
/// Most functions in one [`ToWorker::Bans`], which then fits a packet.
pub const BANS_MAX: usize = 5000;
/// The signal by which a host takes the rest of a long slice from a call while others wait: SIGURG, which does nothing to a process that does not expect it.
pub const POKE_SIGNAL: i32 = 23;
/// Most that [`Start::suspended_max`] may be.
pub const SUSPENDED_MAX: u32 = 1024;
/// Most descriptors beside one packet.
pub const PACKET_FDS_MAX: usize = 6;

/// Node to worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToWorker {
    /// The worker's settings. Descriptor: what it counts in (`microfaas_metrics::Region`). Answered by [`ToNode::Started`].
    Start(Start),
    /// A lane to serve. Descriptors: the host's eventfd, down, bulk, up; the order matters to the worker's sandbox. Answered by [`ToNode::LaneAdded`].
    /// Lane 0, the node's own, comes before `Seal`. The others come at any time;
    /// where such a one cannot be, the answer is [`ToNode::LaneRefused`].
    AddLane(LaneSpec),
    /// A lane whose host has gone: its calls are dropped unanswered, and nothing of it is touched any more. No descriptors. Answered by
    /// [`ToNode::LaneRemoved`], also where the worker has cut the lane before.
    RemoveLane {
        /// Its number; not 0.
        lane: u32,
    },
    /// The functions that are banned: their calls that come by another lane than the node's own are answered `BANNED` and not run. All others are not. No descriptors. Answered by [`ToNode::BansKept`].
    Bans {
        /// Dense numbers, in order; at most [`BANS_MAX`].
        functions: Vec<u32>,
    },
    /// Says that the worker still listens. No descriptors. Answered by [`ToNode::Pong`].
    Ping,
    /// Give up everything that the sandbox takes, before the first code of a module is there. Apart from `Load`, since the kernel may take long over it on a machine that has
    /// too much to do (it waits for all cores), which is not the module's fault. Descriptors: namespaces to join (`microfaas_sys::namespaces::Shared`), where the node has made
    /// some. Answered by [`ToNode::Sealed`].
    Seal,
    /// A module to load. Descriptor: a sealed memfd with the shared library. Answered by [`ToNode::Loaded`]
    /// or [`ToNode::LoadFailed`].
    Load(Load),
    /// Modules that are cold: there, and loaded when they are called. A call of one waits in the worker, which says [`ToNode::Wanted`] and gets a
    /// [`Load`](Self::Load). No descriptors. Answered by [`ToNode::Shelved`].
    Shelve {
        /// As many as fit a packet.
        modules: Vec<Load>,
    },
    /// A module to unload: new calls do not ask for it any more. The calls that have started, and those that were submitted before the worker heard of it, are
    /// ended by it as ever. No descriptors. Answered by [`ToNode::Unloading`], and by [`ToNode::Unloaded`] when it is gone.
    Unload(Unload),
    /// Start no more calls, end those that have started, and then the process. Hosts learn it by its end, and send what has not started to other workers. What else the node
    /// says is answered as ever meanwhile. No descriptors. Answered by [`ToNode::Retiring`].
    Retire,
    /// No more set-up: serve. Answered by [`ToNode::Ready`].
    Serve,
}

impl ToWorker {
    /// Its name in a packet.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::AddLane(_) => "add_lane",
            Self::RemoveLane { .. } => "remove_lane",
            Self::Bans { .. } => "bans",
            Self::Ping => "ping",
            Self::Seal => "seal",
            Self::Load(_) => "load",
            Self::Shelve { .. } => "shelve",
            Self::Unload(_) => "unload",
            Self::Retire => "retire",
            Self::Serve => "serve",
        }
    }
}

/// See [`ToWorker::Start`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Core to pin to; `None` leaves the scheduler free. The node may move the worker later.
    pub cpu: Option<u32>,
    /// Longest spin before sleeping, in nanoseconds; 0 never spins.
    pub spin_ns_max: u64,
    /// Bytes of one call stack.
    pub stack_bytes: u64,
    /// Most heap bytes of one call.
    pub arena_bytes: u64,
    /// Most heap bytes that one module's `init` may keep.
    pub init_bytes: u64,
    /// Most calls that may be suspended at once; 0 to [`SUSPENDED_MAX`].
    pub suspended_max: u32,
    /// Most bytes of loaded modules; 0 for no limit. A module that takes more by itself is refused. Where a load would pass it, modules that do not
    /// [stay](Load::stays) are unloaded before, the least recently used first.
    pub modules_bytes_max: u64,
    /// Most loaded modules, likewise; 0 for no limit.
    pub modules_max: u32,
    /// Nanoseconds per cycle, times 2^32, as the node has measured; 0 where the worker is to measure by itself, which takes it 2 ms.
    pub cycle_rate: u64,
    /// Process id of the node, to notice its death between fork and the death signal's arming.
    pub node_pid: u32,
    /// What the worker gives up before the first code of a function runs.
    pub sandbox: SandboxPolicy,
}

/// See [`ToWorker::AddLane`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneSpec {
    /// Number of the lane in this worker, from 0.
    pub lane: u32,
    /// Sizes; the worker checks the regions' headers against it.
    pub geometry: Geometry,
    /// The host is not trusted: its requests are copied before functions see them, and responses when they are complete.
    pub copies: bool,
}

/// See [`ToWorker::Load`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The module's number in the node; another for each time that it is deployed.
    pub module: u32,
    /// What to call the module in messages: its file name.
    pub label: String,
    /// Bytes of its image: the least that it takes.
    pub image_bytes: u64,
    /// It is not unloaded to make room for others.
    pub stays: bool,
    /// Function numbers in the node (dense, from 0) and the names that the module gives them.
    pub functions: Vec<FunctionSpec>,
}

/// See [`ToWorker::Unload`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unload {
    /// The number that its [`Load`] had.
    pub module: u32,
    /// Where calls go that come late: pairs of a function number that is not in use any more, and the one that is in its place. A number of the module that
    /// is not among them is one of no function afterwards.
    pub successors: Vec<(u32, u32)>,
}

/// One function of a [`Load`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSpec {
    /// Dense number, the one that submissions carry.
    pub function: u32,
    /// Name in the module's table.
    pub name: String,
    /// Numbers of earlier versions of this function: calls that carry one come late and go to this version, unless the worker still has that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<u32>,
    /// What its calls may use.
    #[serde(default)]
    pub limits: Limits,
}

/// How long a function's calls may have the core. See DESIGN's glossary: quantum, budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// CPU time after which another call that waits gets the core, in nanoseconds.
    pub quantum_ns: u64,
    /// CPU time after which the call is ended, in nanoseconds; at least the quantum.
    pub budget_ns: u64,
    /// What happens at the end of the first quantum.
    pub policy: Policy,
    /// Whether statics keep their values from call to call (but not over a call that was ended, by force or at a safe point).
    pub stateful: bool,
}

/// See [`Limits::policy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The call is suspended while others wait, and ended when its budget is spent.
    #[default]
    Share,
    /// The call is ended.
    Kill,
}

/// When a function's module is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loading {
    /// When a worker starts, and it stays loaded.
    #[default]
    Start,
    /// When it is called for the first time; it may be unloaded when it was not called for a while and others need the room.
    FirstCall,
}

impl Loading {
    /// As it is written in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::FirstCall => "first-call",
        }
    }
}

/// Least quantum: about what the timer's own lateness is on a virtual machine.
pub const QUANTUM_NS_MIN: u64 = 20_000;
/// Most budget: an hour.
pub const BUDGET_NS_MAX: u64 = 3_600_000_000_000;

impl Default for Limits {
    /// A quantum of 1 ms, a budget of 1 s, shared.
    fn default() -> Self {
        Self { quantum_ns: 1_000_000, budget_ns: 1_000_000_000, policy: Policy::Share, stateful: false }
    }
}

/// Worker to node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToNode {
    /// Settings are in force.
    Started,
    /// The lane is mapped and will be polled.
    LaneAdded {
        /// Its number.
        lane: u32,
    },
    /// The lane is not served; nothing of it is mapped.
    LaneRefused {
        /// Its number.
        lane: u32,
        /// One line.
        reason: String,
    },
    /// The lane is mapped no more, and its number is free.
    LaneRemoved {
        /// Its number.
        lane: u32,
    },
    /// Answers nothing: the host of this lane has submitted what cannot be a submission, and the worker has cut the lane. Its number is free
    /// after [`ToWorker::RemoveLane`].
    LaneFault {
        /// Its number.
        lane: u32,
        /// One line.
        reason: String,
    },
    /// Answers nothing: a call of this function has ended FAULT or DENIED, and came by another lane than the node's own, where the node sees it. At most
    /// [`FAULTS_PER_SECOND`](rate::FAULTS_PER_SECOND).
    Fault {
        /// Its dense number.
        function: u32,
        /// It broke memory safety.
        is_unsafe: bool,
    },
    /// The banned functions are not run.
    BansKept,
    /// The worker listens.
    Pong,
    /// The sandbox is entered.
    Sealed,
    /// The module's functions can be called.
    Loaded {
        /// Its number.
        module: u32,
        /// Writable bytes (data, bss, thread-locals) that each reset copies.
        writable_bytes: u64,
        /// Heap bytes that `init` holds.
        init_bytes: u64,
        /// Bytes that it takes altogether: its image, the copies of what each reset restores, and the heap.
        bytes: u64,
    },
    /// The modules are known, and cold.
    Shelved,
    /// Answers nothing: a cold module has been called. Answered by a [`ToWorker::Load`] of it; not said again until then.
    Wanted {
        /// Its number.
        module: u32,
    },
    /// Answers nothing: a module was unloaded to make room, and is cold.
    Evicted {
        /// Its number.
        module: u32,
        /// As in [`Unloaded`](Self::Unloaded).
        stayed_bytes: u64,
    },
    /// The module was refused; the worker goes on without it. One that was cold is so still: it may be wanted again.
    LoadFailed {
        /// Its number.
        module: u32,
        /// One line.
        reason: String,
    },
    /// The module is on its way out.
    Unloading {
        /// Its number.
        module: u32,
    },
    /// Answers nothing: a module that was on its way out is gone.
    Unloaded {
        /// Its number.
        module: u32,
        /// Bytes that the system's loader has kept mapped all the same; 0 where it is gone altogether.
        stayed_bytes: u64,
    },
    /// No call is started any more.
    Retiring,
    /// Serving.
    Ready {
        /// What it is sealed in by.
        sandbox: SandboxReport,
    },
    /// The worker cannot go on; it ends after this. A sealed worker may not call `exit`: it ends by SIGSYS, whatever the cause.
    Fatal {
        /// One line.
        reason: String,
    },
}

impl ToNode {
    /// Whether this is what a worker may say when it is asked that. [`Fatal`](Self::Fatal) answers nothing.
    #[must_use]
    pub fn answers(&self, question: &ToWorker) -> bool {
        match (question, self) {
            (ToWorker::Start(_), Self::Started) | (ToWorker::Serve, Self::Ready { .. }) => true,
            (ToWorker::Seal, Self::Sealed) => true,
            (ToWorker::AddLane(spec), Self::LaneAdded { lane } | Self::LaneRefused { lane, .. }) => {
                *lane == spec.lane
            }
            (ToWorker::RemoveLane { lane }, Self::LaneRemoved { lane: removed }) => removed == lane,
            (ToWorker::Ping, Self::Pong)
            | (ToWorker::Retire, Self::Retiring)
            | (ToWorker::Bans { .. }, Self::BansKept)
            | (ToWorker::Shelve { .. }, Self::Shelved) => true,
            (ToWorker::Load(load), Self::Loaded { module, .. } | Self::LoadFailed { module, .. }) => {
                *module == load.module
            }
            (ToWorker::Unload(unload), Self::Unloading { module }) => *module == unload.module,
            _ => false,
        }
    }
}

/// Encodes one packet.
///
/// # Errors
/// When a string makes the packet longer than [`PACKET_BYTES_MAX`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, PacketError> {
    let bytes = serde_json::to_vec(message).map_err(|_| PacketError::Malformed)?;
    if bytes.len() > PACKET_BYTES_MAX {
        return Err(PacketError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// Decodes one packet.
///
/// # Errors
/// When it is not exactly one message.
pub fn decode<'a, T: Deserialize<'a>>(packet: &'a [u8]) -> Result<T, PacketError> {
    serde_json::from_slice(packet).map_err(|_| PacketError::Malformed)
}

/// A packet that cannot be sent or understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacketError {
    /// This many bytes, over [`PACKET_BYTES_MAX`].
    TooLong(usize),
    /// Not a message of this protocol.
    Malformed,
}

impl std::fmt::Display for PacketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(n) => {
                write!(f, "control packet of {n} bytes, at most {PACKET_BYTES_MAX} are allowed")
            }
            Self::Malformed => write!(f, "malformed control packet"),
        }
    }
}

impl std::error::Error for PacketError {}
