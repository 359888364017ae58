//! The host side of microfaas: starts and supervises workers, dispatches calls to them, hands the answers back.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use microfaas_node::Node;
//!
//! let node = Node::builder().modules("modules").workers(2).start()?;
//! let answer = node.invoke("hello", b"world".as_slice())?;
//! println!("{}", String::from_utf8_lossy(&answer.body));
//! # Ok(())
//! # }
//! ```
//!
//! Many threads may use one [`Node`] at once. A call can be waited for ([`Node::invoke`]), awaited ([`Node::invoke_async`]), or submitted
//! ([`Node::submit`]) and looked after later: by [`Call::try_take`], [`Call::wait`], as a future, or from an event loop with [`Node::event_fd`].
//! **Every accepted call gets exactly one completion**, whatever becomes of its worker: a worker that dies, hangs or breaks the lane's
//! protocol is replaced, its calls that had not started go to another worker, and the others are answered with `WORKER_LOST`, or run again where their function is idempotent.
//!
//! Nothing is allocated or logged on the path of a call, and no system call is made while both sides are awake.
//!
//! **Architecture Invariant:** this crate knows nothing of HTTP, C or Python, and never depends on the worker.

mod attach;
mod ban;
mod builder;
mod call;
mod catalog;
mod command;
mod completion;
mod deploy;
mod driver;
mod error;
mod find_worker;
mod function;
mod health;
mod hub;
mod image;
mod lane;
mod lapse;
mod launch;
mod limits;
mod live;
mod memory;
mod metrics;
mod moves;
mod names;
mod node;
mod notice;
mod oversight;
mod park;
mod pulse;
mod registry;
mod report;
mod restart;
mod rollout;
mod seat;
mod shelf;
mod spare;
mod stock;
mod supervisor;
mod trace;
mod version;
mod warm;
mod watch;

pub use attach::{ConnectError, HOSTS_MAX, HostInfo, SocketConfig, SocketError, administrate, stats};
pub use ban::{Ban, BanCause};
pub use builder::NodeBuilder;
pub use call::{Call, FunctionHandle, Prepared, Request};
pub use completion::{Completion, Meta, Response};
pub use deploy::{DeployError, Reload};
pub use error::{CallError, LaunchError, NodeError, Scarce};
pub use find_worker::{WORKER_PROGRAM, WORKER_VARIABLE};
pub use function::{FunctionConfig, FunctionInfo};
pub use health::Health;
pub use metrics::{FunctionMetrics, Metrics, RestartCause, WorkerMetrics};
pub use microfaas_control::admin::{
    AdminAnswer, AdminRequest, Deployed, FunctionDescription, ModuleChange, ModuleInfo, Outcome,
};
pub use microfaas_control::sandbox::{Layer, LayerState, SandboxPolicy, SandboxReport};
pub use microfaas_control::stats::{
    AttachedStats, FunctionStats, HostStats, Latency, ModuleStats, NodeStats, ShareStats, SpareStats,
    WorkerStats,
};
pub use microfaas_control::{BUDGET_NS_MAX, BUILD, Limits, Loading, Policy, QUANTUM_NS_MIN, SUSPENDED_MAX};
pub use microfaas_lane::layout::Geometry;
pub use microfaas_lane::message;
pub use microfaas_lane::{Status, Violation};
pub use microfaas_metrics::{BUCKETS, Histogram, Usage, lower_bound_ns};
pub use node::{Node, Stats, Target};
pub use report::histogram;
pub use seat::{WorkerInfo, WorkerState};
pub use spare::SpareInfo;
pub use stock::Stocked;
