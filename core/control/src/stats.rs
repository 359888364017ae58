//! A node's counts as others get to see them: over the socket, and as `microfaas stats --json` prints them. Times in nanoseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a host asks for the counts by, in an attach connection's `Admin`. The answer is the number of bytes of a file in memory with [`NodeStats`] in JSON,
/// which comes beside it: it may be longer than a packet.
pub const REQUEST: &str = "stats";

/// Counts since the node was started; each is exact, together they are not from one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStats {
    /// Process id of the node.
    pub pid: u32,
    /// Functions that were called, in the order of their names.
    pub functions: Vec<FunctionStats>,
    /// Calls of what is not counted apart; `None` where there were none.
    pub others: Option<FunctionStats>,
    /// In the order of their numbers.
    pub workers: Vec<WorkerStats>,
    /// Processes that wait to take a worker's place. They are no workers until then.
    #[serde(default)]
    pub spares: SpareStats,
    /// Hosts that are attached, those that have been for longest first.
    #[serde(default)]
    pub hosts: Vec<AttachedStats>,
    /// Counts of the node as a host of its own.
    pub host: HostStats,
}

/// What the calls of one function have used, whichever host they came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionStats {
    /// Its name.
    pub name: String,
    /// Calls that ended, by name of the status.
    pub calls: BTreeMap<String, u64>,
    /// Core time of calls: what a bill is made of. How long workers live does not count.
    pub cpu_ns: u64,
    /// Body and metadata of the requests of calls that ran.
    pub request_bytes: u64,
    /// Body and metadata of their responses.
    pub response_bytes: u64,
    /// From submission to start.
    pub queue: Latency,
    /// Core time of each call.
    pub run: Latency,
    /// From submission to completion.
    pub total: Latency,
    /// The same by worker, of those that have had calls, in the order of their numbers. What was decided without a worker is in none.
    #[serde(default)]
    pub workers: Vec<ShareStats>,
}

/// What one worker's place has had of a function's calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareStats {
    /// Number of the worker.
    pub worker: u32,
    /// Calls that ended, by name of the status.
    pub calls: BTreeMap<String, u64>,
    /// Core time of calls.
    pub cpu_ns: u64,
    /// Body and metadata of the requests of calls that ran.
    pub request_bytes: u64,
    /// Body and metadata of their responses.
    pub response_bytes: u64,
    /// Of a hundred calls, one took longer from submission to start.
    pub queue_p99_ns: u64,
    /// The same of core time.
    pub run_p99_ns: u64,
    /// The same from submission to completion.
    pub total_p99_ns: u64,
}

/// How long something took. Quantiles are within 12.5 %, and 0 where there is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How often it happened.
    pub count: u64,
    /// All of it together.
    pub sum_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// Nine of ten are not above.
    pub p90_ns: u64,
    /// Of a hundred, one is above.
    pub p99_ns: u64,
    /// Of a thousand, one is above.
    pub p999_ns: u64,
    /// The buckets that are not empty: their least time, and how many there are.
    pub buckets: Vec<(u64, u64)>,
}

/// One worker's place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Its number.
    pub index: u32,
    /// Process id, while there is a process.
    pub pid: Option<u32>,
    /// The core that it is pinned to.
    pub cpu: Option<u32>,
    /// `starting`, `serving`, `backing_off` or `stopped`.
    pub state: String,
    /// How many processes its place has had.
    pub generation: u32,
    /// How many of them have ended and were replaced, by cause.
    pub restarts: BTreeMap<String, u64>,
    /// Slots of the node's own lane.
    pub slots: u32,
    /// How many of them are in use.
    pub slots_in_use: u32,
    /// Calls that it has ended, those of its predecessors included.
    pub calls: u64,
    /// Core time of these.
    pub cpu_ns: u64,
    /// Its modules.
    #[serde(default)]
    pub modules: ModuleStats,
}

/// What a worker's place has loaded; what is counted is of all workers that it has had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleStats {
    /// Loaded now; a module with functions that keep state and others counts twice.
    pub loaded: u64,
    /// Bytes that these take.
    pub bytes: u64,
    /// Modules that were loaded for a call that waited.
    pub cold_loads: u64,
    /// How long these took, from when the node heard of the call, all together.
    pub cold_load_ns: u64,
    /// Modules that a call waited for and that could not be loaded.
    pub cold_load_failures: u64,
    /// Modules that were unloaded to make room for others.
    pub evictions: u64,
}

/// Processes that wait to take a worker's place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpareStats {
    /// How many there are to be.
    pub wanted: u32,
    /// Process ids of those that can take a place now.
    pub ready: Vec<u32>,
    /// Process ids of those that are being set up.
    pub starting: Vec<u32>,
    /// They have ended too often: the next one waits.
    pub backing_off: bool,
    /// How many have taken a place.
    pub adopted: u64,
    /// How many have ended without that.
    pub ended: u64,
}

/// A host that is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedStats {
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// Its calls that had their end without a worker (refused, taken back, lost), by name of the status, as it says.
    pub decided: BTreeMap<String, u64>,
}

/// What the node knows of the calls that it has submitted itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStats {
    /// Calls that came back, by name of the status.
    pub completed: BTreeMap<String, u64>,
    /// Calls that came back after their callers had gone.
    pub abandoned: u64,
    /// Calls on their way.
    pub outstanding: u64,
    /// Times a worker broke the lane's protocol.
    pub violations: u64,
    /// Times a long slice was taken from a call for another.
    pub pokes: u64,
    /// Times a call went to another worker.
    pub moves: u64,
    /// Times one was run again, since its worker was lost with it.
    pub retries: u64,
}
