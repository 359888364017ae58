//! Hosts in other processes: a socket with a path, behind which each of them gets a lane to every worker.
//!
//! In the node, [`server`] is a thread of its own. It watches connections ([`guest`]), makes lanes' memory, and has workers asked to serve and to drop lanes
//! by way of the supervisor's desk; [`bulletin`] tells it when workers come and go. It never waits for a peer: what a host does not read is kept, a little of it
//! for a little while, and then the host is shown out. What both sides say is in `microfaas_control::attach`.
//!
//! In the host, [`attachment`] is what the supervisor is in a node: the one thread that fills the seats with lanes, watches deadlines, and settles what is lost.
//! The rest of a [`Node`](crate::Node) does not know the difference.

pub(crate) mod attachment;
pub(crate) mod bulletin;
pub(crate) mod door;
mod guest;
pub(crate) mod ledger;
mod mirror;
mod numbers;
mod outbox;
pub(crate) mod server;
mod session;
mod stats;

use std::path::{Path, PathBuf};

pub use door::SocketError;
pub use ledger::HostInfo;
pub use session::{ConnectError, administrate};
pub use stats::stats;

/// Most hosts that can be attached at once: a worker sleeps on at most 128 lanes, of which one is the node's own.
pub const HOSTS_MAX: u32 = 127;

/// Where hosts attach, and which may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
    pub(crate) users: Vec<u32>,
    pub(crate) groups: Vec<u32>,
    pub(crate) hosts_max: u32,
}

impl SocketConfig {
    /// A socket that only the node's own user and root can use.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: 0o600,
            group: None,
            users: Vec::new(),
            groups: Vec::new(),
            hosts_max: HOSTS_MAX,
        }
    }

    /// Permissions of the socket's file: who can connect, before it is looked at who may stay. Default: `0o600`.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Group of the socket's file. Default: the node's own.
    #[must_use]
    pub fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// Lets hosts of this user in. May be called again.
    #[must_use]
    pub fn allow_user(mut self, user: u32) -> Self {
        self.users.push(user);
        self
    }

    /// Lets hosts in whose user is in this group. May be called again.
    #[must_use]
    pub fn allow_group(mut self, group: u32) -> Self {
        self.groups.push(group);
        self
    }

    /// Most hosts at once, 1 to [`HOSTS_MAX`], which is the default.
    #[must_use]
    pub fn hosts_max(mut self, count: u32) -> Self {
        self.hosts_max = count;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl<T: Into<PathBuf>> From<T> for SocketConfig {
    fn from(path: T) -> Self {
        Self::new(path)
    }
}
