//! What a node and a host in another process say to each other, over a Unix socket of packets that has a path.
//!
//! A connection begins with [`Hello`](FromHost::Hello). The node answers [`Welcome`](ToHost::Welcome) and the table of functions, or
//! [`Refused`](ToHost::Refused) and the end. To a host that wants lanes it offers one for each worker that serves, one offer at a time:
//!
//! ```text
//! node                                            host
//! makes the memory, Offer [event down bulk up] ─▶ maps it, writes headers, prepares rings
//! seals down against new writers   ◀──────────── Mapped
//! gives it to the worker (AddLane)
//! Open ─────────────────────────────────────────▶ submits
//! Gone (the worker ended, or cut it) ───────────▶ settles what is in flight
//! ```
//!
//! So a host never passes a descriptor, and the node has nothing of a host's to check but numbers. A packet that does not parse, has a descriptor beside it or
//! does not belong where it comes ends the connection; the end of the connection takes all lanes of the host back.

use microfaas_lane::layout::Geometry;
use serde::{Deserialize, Serialize};

use crate::Limits;
use crate::sandbox::SandboxReport;

/// Version of this protocol.
pub const VERSION: u32 = 1;
/// Most descriptors beside a packet to a host.
pub const FDS_MAX: usize = 5;

/// Host to node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromHost {
    /// The first message.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Whether it wants to submit calls; otherwise it has questions only.
        lanes: bool,
    },
    /// The memory of an offered lane is mapped and prepared.
    Mapped {
        /// Its number.
        lane: u64,
    },
    /// A lane does not work as it should; the host uses it no more.
    Complaint {
        /// Its number.
        lane: u64,
        /// What is wrong.
        about: Complaint,
    },
    /// A request for the node's administration; only its own user and root may.
    Admin {
        /// Comes back with the answer.
        id: u64,
        /// What is asked.
        request: serde_json::Value,
    },
}

/// See [`FromHost::Complaint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Complaint {
    /// The worker has broken the lane's protocol.
    Violation,
    /// A call is long overdue and its worker does not let go of it.
    Hangs,
    /// An offered lane is to a worker that the host has no place for.
    Unwanted,
    /// The host cannot take an offered lane now: it has as many descriptors open as it may, or no memory. It is to be offered another one after a while.
    Untaken,
}

/// Node to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToHost {
    /// The host is let in. Descriptor, to one that gets lanes, where the node could make it: what the host counts in that it decides of its calls without a worker
    /// (`microfaas_metrics::Region`).
    Welcome(Welcome),
    /// A part of the table of functions.
    Functions {
        /// The table begins anew.
        first: bool,
        /// It is whole.
        last: bool,
        /// As many as fit.
        functions: Vec<Function>,
    },
    /// What a worker's place is doing.
    Worker(Worker),
    /// The memory of a new lane. Descriptors: eventfd, down, bulk, up, and the worker's process, to poke it.
    Offer {
        /// Number of the lane in this connection.
        lane: u64,
        /// Number of its worker.
        worker: u32,
        /// Sizes of the regions.
        geometry: Geometry,
    },
    /// The worker serves the lane.
    Open {
        /// Its number.
        lane: u64,
    },
    /// The worker does not serve the lane any more, and never will.
    Gone {
        /// Its number.
        lane: u64,
        /// One line.
        reason: String,
    },
    /// Every worker that served when the host came has a lane.
    Ready,
    /// The node is shutting down: no more calls. The host ends the connection when none of its calls is out, or the node does when it waits no longer.
    Closing,
    /// Answers [`FromHost::Admin`].
    Admin {
        /// Of the request.
        id: u64,
        /// The answer, or one line that says why not.
        answer: Result<serde_json::Value, String>,
    },
    /// The last message: the host is not let in, or is shown out.
    Refused {
        /// One line.
        reason: String,
    },
}

/// See [`ToHost::Welcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// [`VERSION`].
    pub version: u32,
    /// Workers of the node.
    pub workers: u32,
    /// Longest spin of a waiting caller, in nanoseconds.
    pub spin_ns: u64,
    /// How long after its deadline a call may still be with its worker, in nanoseconds.
    pub stall_ns: u64,
}

/// One row of the table of functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// The number that submissions carry now.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The module's file.
    pub module: String,
    /// How long a caller waits who sets no deadline, in nanoseconds; `u64::MAX` for no limit.
    pub deadline_ns: u64,
    /// A call whose worker died may be run again.
    pub idempotent: bool,
    /// How long its calls may have the core.
    pub limits: Limits,
    /// Most of its calls that a host may have on their way; 0 for no limit.
    pub concurrency: u32,
    /// Workers load it when it is called.
    pub is_lazy: bool,
}

/// See [`ToHost::Worker`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Its number.
    pub index: u32,
    /// Process id, while it serves.
    pub pid: Option<u32>,
    /// The core that it is pinned to.
    pub cpu: Option<u32>,
    /// How many processes its place has had.
    pub generation: u32,
    /// How many of them have ended, whatever for, and were replaced.
    pub restarts: u32,
    /// What it is sealed in by.
    pub sandbox: SandboxReport,
}
