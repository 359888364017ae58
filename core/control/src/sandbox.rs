//! What a worker gives up before the first code of a function runs in it, and what came of it. The steps themselves are in `core/sandbox`.

use serde::{Deserialize, Serialize};

/// What the node asks of a worker's sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxPolicy {
    /// Off is for debugging only: functions can then do whatever the node's user can.
    pub enabled: bool,
    /// The user and the group that a worker of a node that runs as root becomes; not 0. Another node's workers keep its user.
    pub uid: u32,
    /// See [`uid`](Self::uid).
    pub gid: u32,
    /// Most bytes of private writable memory, `RLIMIT_DATA`; at least what arenas, stacks and modules need. `None` is no limit.
    pub data_bytes_max: Option<u64>,
}

/// `nobody` and `nogroup` on most systems.
pub const UNPRIVILEGED_ID: u32 = 65_534;

impl SandboxPolicy {
    /// No sandbox at all.
    pub const OFF: Self =
        Self { enabled: false, uid: UNPRIVILEGED_ID, gid: UNPRIVILEGED_ID, data_bytes_max: None };
}

impl Default for SandboxPolicy {
    /// Everything that the kernel grants, as `nobody`.
    fn default() -> Self {
        Self { enabled: true, ..Self::OFF }
    }
}

/// One layer of the sandbox, in the order in which they are entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layer {
    /// No program can give the process more rights than it has.
    NoNewPrivileges,
    /// Only the control socket and the hosts' eventfds are open.
    Descriptors,
    /// A user namespace, which lets an ordinary user make the other namespaces, or join them. These are a node's, for all its workers, or a worker's own.
    UserNamespace,
    /// No network, not even loopback.
    NetNamespace,
    /// No System V or POSIX message queues, semaphores and shared memory of others.
    IpcNamespace,
    /// Another host name than the system's.
    UtsNamespace,
    /// Does not see where in the tree of control groups it is.
    CgroupNamespace,
    /// Other mounts than the system's.
    MountNamespace,
    /// An empty, read-only root directory.
    EmptyRoot,
    /// An unprivileged user and group, without supplementary groups.
    Identity,
    /// No capability is left, nor can one come back.
    Capabilities,
    /// Other processes of the same user can neither trace it nor read its memory; no core dump.
    NotDumpable,
    /// It is killed when its node dies.
    DeathSignal,
    /// No file, no TCP port, and no signal or abstract socket to anybody outside.
    Landlock,
    /// Limits on files, processes, locked memory and the like, most of them 0.
    Limits,
    /// A limit on private writable memory.
    DataLimit,
    /// Memory that was writable never becomes executable.
    WriteXorExecute,
    /// The allow-list of system calls.
    SystemCalls,
}

impl Layer {
    /// In words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::NoNewPrivileges => "no new privileges",
            Self::Descriptors => "descriptors closed",
            Self::UserNamespace => "user namespace",
            Self::NetNamespace => "network namespace",
            Self::IpcNamespace => "ipc namespace",
            Self::UtsNamespace => "uts namespace",
            Self::CgroupNamespace => "cgroup namespace",
            Self::MountNamespace => "mount namespace",
            Self::EmptyRoot => "empty root directory",
            Self::Identity => "unprivileged user",
            Self::Capabilities => "no capabilities",
            Self::NotDumpable => "not dumpable",
            Self::DeathSignal => "dies with its node",
            Self::Limits => "resource limits",
            Self::DataLimit => "memory limit",
            Self::Landlock => "landlock",
            Self::WriteXorExecute => "write xor execute",
            Self::SystemCalls => "system call filter",
        }
    }

    /// Whether a worker without it does not start.
    #[must_use]
    pub fn is_mandatory(self) -> bool {
        matches!(
            self,
            Self::NoNewPrivileges
                | Self::Descriptors
                | Self::Identity
                | Self::Capabilities
                | Self::DeathSignal
                | Self::SystemCalls
        )
    }
}

/// What came of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerState {
    /// In force.
    Active,
    /// The kernel said no, in these words.
    Refused(String),
    /// Not wanted, for this reason.
    NotAsked(String),
}

/// One line of a [`SandboxReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerReport {
    /// Which one.
    pub layer: Layer,
    /// What came of it.
    pub state: LayerState,
}

/// What a worker's sandbox consists of, in the order of its making. Empty where it is off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxReport {
    /// One for each layer that was tried or left out.
    pub entries: Vec<LayerReport>,
}

impl SandboxReport {
    /// What became of a layer; `None` where the sandbox was not entered that far.
    #[must_use]
    pub fn state(&self, layer: Layer) -> Option<&LayerState> {
        self.entries.iter().find(|entry| entry.layer == layer).map(|entry| &entry.state)
    }

    /// Whether a layer is in force.
    #[must_use]
    pub fn is_active(&self, layer: Layer) -> bool {
        self.state(layer) == Some(&LayerState::Active)
    }

    /// The layers that the kernel refused, with its words.
    pub fn refused(&self) -> impl Iterator<Item = (Layer, &str)> {
        self.entries.iter().filter_map(|entry| match &entry.state {
            LayerState::Refused(reason) => Some((entry.layer, reason.as_str())),
            LayerState::Active | LayerState::NotAsked(_) => None,
        })
    }
}

impl std::fmt::Display for SandboxReport {
    /// One line for each layer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for entry in &self.entries {
            let (word, reason) = match &entry.state {
                LayerState::Active => ("active", None),
                LayerState::Refused(reason) => ("refused", Some(reason)),
                LayerState::NotAsked(reason) => ("not asked", Some(reason)),
            };
            write!(f, "{:<22}{word}", entry.layer.describe())?;
            if let Some(reason) = reason {
                write!(f, ": {reason}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_was_refused() {
        let entry = |layer, state| LayerReport { layer, state };
        let report = SandboxReport {
            entries: vec![
                entry(Layer::NoNewPrivileges, LayerState::Active),
                entry(Layer::NetNamespace, LayerState::Refused("EPERM".to_owned())),
                entry(Layer::DataLimit, LayerState::NotAsked("no limit set".to_owned())),
            ],
        };
        assert!(report.is_active(Layer::NoNewPrivileges));
        assert!(!report.is_active(Layer::SystemCalls) && report.state(Layer::SystemCalls).is_none());
        assert_eq!(report.refused().collect::<Vec<_>>(), [(Layer::NetNamespace, "EPERM")]);
        let text = report.to_string();
        assert!(text.contains("network namespace     refused: EPERM\n"), "{text}");
        assert_eq!(text.lines().count(), 3);
        let packet = crate::encode(&report).unwrap();
        assert_eq!(crate::decode::<SandboxReport>(&packet).unwrap(), report);
    }
}
