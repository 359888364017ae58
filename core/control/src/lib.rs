//! What a node and a worker say to each other off the data path.
//!
//! The node starts a worker with one end of a `SOCK_SEQPACKET` socket pair as descriptor [`CONTROL_FD`]. Each packet is one JSON
//! message of at most [`PACKET_BYTES_MAX`] bytes; descriptors travel beside it (`SCM_RIGHTS`) in the order that
//! the message's documentation gives. The node sends [`Start`](ToWorker::Start) once, then any number of [`Load`](ToWorker::Load);
//! the worker answers each with exactly one [`ToNode`]. The worker looks at the socket when a lane's control
//! count has moved (see `docs/protocol.md` of the lane), never on the path of a call.
//!
//! The node distrusts what a worker says here as it does in the lane: a packet that does not parse, or
//! answers no question, gets the worker killed.
#![forbid(unsafe_code)]

use microfaas_lane::layout::Geometry;
use serde::{Deserialize, Serialize};

/// Descriptor number of the control socket in a new worker.
pub const CONTROL_FD: i32 = 3;
/// Most bytes in one packet.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;
/// Most descriptors beside one packet.
pub const PACKET_FDS_MAX: usize = 4;

/// Node to worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToWorker {
    /// The worker's settings. No descriptors. Answered by [`ToNode::Started`].
    Start(Start),
    /// A lane to serve. Descriptors: down, bulk, up, and the host's eventfd. Answered by [`ToNode::LaneAdded`].
    AddLane(LaneSpec),
    /// A module to load. Descriptor: a sealed memfd with the shared library. Answered by [`ToNode::Loaded`]
    /// or [`ToNode::LoadFailed`].
    Load(Load),
    /// No more set-up: enter the sandbox and serve. Answered by [`ToNode::Ready`].
    Serve,
}

/// See [`ToWorker::Start`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// This worker's number in its node, from 0.
    pub worker: u32,
    /// Core to pin to; `None` leaves the scheduler free.
    pub cpu: Option<u32>,
    /// Longest spin before sleeping, in nanoseconds; 0 never spins.
    pub spin_ns_max: u64,
    /// Bytes of one call stack.
    pub stack_bytes: u64,
    /// Most heap bytes of one call.
    pub arena_bytes: u64,
    /// Most heap bytes that one module's `init` may keep.
    pub init_bytes: u64,
    /// Process id of the node, to notice its death between fork and the death signal's arming.
    pub node_pid: u32,
}

/// See [`ToWorker::AddLane`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaneSpec {
    /// Number of the lane in this worker, from 0.
    pub lane: u32,
    /// Sizes; the worker checks the regions' headers against it.
    pub geometry: Geometry,
}

/// See [`ToWorker::Load`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The module's number in the node.
    pub module: u32,
    /// What to call the module in messages: its file name.
    pub label: String,
    /// Function numbers in the node (dense, from 0) and the names that the module gives them.
    pub functions: Vec<FunctionSpec>,
}

/// One function of a [`Load`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSpec {
    /// Dense number, the one that submissions carry.
    pub function: u32,
    /// Name in the module's table.
    pub name: String,
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
    /// The module's functions can be called.
    Loaded {
        /// Its number.
        module: u32,
        /// Writable bytes (data, bss, thread-locals) that each reset copies.
        writable_bytes: u64,
        /// Heap bytes that `init` holds.
        init_bytes: u64,
    },
    /// The module was refused; the worker goes on without it.
    LoadFailed {
        /// Its number.
        module: u32,
        /// One line.
        reason: String,
    },
    /// Serving.
    Ready,
    /// The worker cannot go on; it exits after this.
    Fatal {
        /// One line.
        reason: String,
    },
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
