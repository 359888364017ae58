//! What is said about a node's modules: answers to whoever deploys, lists and removes them, in this process or over a socket.

use serde::{Deserialize, Serialize};

use crate::Limits;

/// What an operator asks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminRequest {
    /// Deploy a module file, or every `*.so` of a directory. Answered by [`AdminAnswer::Deployed`].
    Deploy {
        /// Absolute path, read by the node.
        path: String,
    },
    /// All modules. Answered by [`AdminAnswer::Modules`].
    List,
    /// One function. Answered by [`AdminAnswer::Function`].
    Describe {
        /// Its name.
        name: String,
    },
    /// Bring back the image that a module had before. Answered by [`AdminAnswer::Deployed`].
    Rollback {
        /// The module's file name, with `.so` or without, or one of its functions.
        name: String,
    },
    /// Take a module away. Answered by [`AdminAnswer::Deployed`].
    Remove {
        /// As in [`Rollback`](Self::Rollback).
        name: String,
    },
}

/// What the node says to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminAnswer {
    /// It was done, wholly.
    Deployed(Deployed),
    /// In the order of their names.
    Modules(Vec<ModuleInfo>),
    /// As asked.
    Function(FunctionDescription),
    /// Nothing was changed.
    Refused {
        /// One line.
        reason: String,
    },
}

/// A module that is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleInfo {
    /// Its file name, by which it is known: deploying a file of the same name replaces it.
    pub name: String,
    /// The file that it was read from.
    pub path: String,
    /// SHA-256 of its image, in hexadecimal.
    pub digest: String,
    /// Bytes of its image.
    pub bytes: u64,
    /// When it was put to use, in milliseconds of the Unix epoch.
    pub deployed_ms: u64,
    /// Names of its functions, in the order of its table.
    pub functions: Vec<String>,
    /// Digest of the image before, to which it can be rolled back.
    pub previous: Option<String>,
}

/// A function in every detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionDescription {
    /// Its name.
    pub name: String,
    /// Its number, which stays.
    pub id: u32,
    /// How long a caller waits who sets no deadline, in nanoseconds; `None` for no limit.
    pub deadline_ns: Option<u64>,
    /// Running it twice does no harm.
    pub idempotent: bool,
    /// How long its calls may have the core.
    pub limits: Limits,
    /// What it is part of.
    pub module: ModuleInfo,
}

/// What has become of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// There was none of that name.
    New,
    /// New calls get the new image; those that run end on the old one.
    Replaced,
    /// It is the image that is in use.
    Unchanged,
    /// New calls do not find its functions.
    Removed,
}

/// One line of [`Deployed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleChange {
    /// The module's name.
    pub module: String,
    /// What has become of it.
    pub outcome: Outcome,
    /// Digest of the image that is in use now.
    pub digest: Option<String>,
    /// Digest of the one that was in use before.
    pub before: Option<String>,
    /// Names of its functions now; of a removed one, those that it had.
    pub functions: Vec<String>,
}

/// What a deployment has done, all of it at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployed {
    /// In the order of the modules' names.
    pub modules: Vec<ModuleChange>,
    /// From the command to the switch, in microseconds.
    pub took_us: u64,
}
