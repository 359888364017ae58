//! What is said about a node's modules: answers to whoever deploys, lists and removes them, in this process or over a socket.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Limits, Loading, PACKET_BYTES_MAX};

/// What an operator asks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminRequest {
    /// Deploy a module file, or every `*.so` of a directory. Answered by [`AdminAnswer::Deployed`].
    Deploy {
        /// Absolute path, read by the node.
        path: String,
    },
    /// Modules, a page at a time. Answered by [`AdminAnswer::Modules`].
    List {
        /// Name of the last one of the page before.
        #[serde(default)]
        after: Option<String>,
    },
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
    /// Let a banned function be called again. Answered by [`AdminAnswer::Lifted`].
    LiftBan {
        /// The function's name.
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
    Modules {
        /// As many as fit; of a module with very many functions, only those that fit.
        modules: Vec<ModuleInfo>,
        /// There are others after them.
        more: bool,
    },
    /// As asked.
    Function(Box<FunctionDescription>),
    /// Whether there was a ban to lift.
    Lifted(bool),
    /// Nothing was changed.
    Refused {
        /// One line.
        reason: String,
    },
}

impl AdminRequest {
    /// From what [`FromHost::Admin`](crate::attach::FromHost::Admin) carries.
    ///
    /// # Errors
    /// One line, where it is no request.
    pub fn from_value(value: Value) -> Result<Self, String> {
        serde_json::from_value(value).map_err(|error| format!("the node does not know this request: {error}"))
    }

    /// For [`FromHost::Admin`](crate::attach::FromHost::Admin).
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Most bytes of an answer, which then fits a packet.
const ANSWER_BYTES_MAX: usize = PACKET_BYTES_MAX - 1024;

impl AdminAnswer {
    /// From what [`ToHost::Admin`](crate::attach::ToHost::Admin) carries; a request that was not let through is refused.
    #[must_use]
    pub fn from_value(answer: Result<Value, String>) -> Self {
        let answer =
            answer.and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()));
        answer.unwrap_or_else(|reason| Self::Refused { reason })
    }

    /// For [`ToHost::Admin`](crate::attach::ToHost::Admin): what does not fit is left out, and said to be.
    #[must_use]
    pub fn to_value(mut self) -> Value {
        loop {
            let value = serde_json::to_value(&self).unwrap_or_default();
            if value.to_string().len() <= ANSWER_BYTES_MAX || !self.shorten() {
                return value;
            }
        }
    }

    /// False where nothing can be left out.
    fn shorten(&mut self) -> bool {
        match self {
            Self::Modules { modules, more } if modules.len() > 1 => {
                modules.truncate(modules.len() / 2);
                *more = true;
            }
            Self::Modules { modules, .. } => {
                let Some(only) = modules.first_mut().filter(|only| !only.functions.is_empty()) else {
                    return false;
                };
                only.functions.truncate(only.functions.len() / 2);
            }
            Self::Function(described) if !described.module.functions.is_empty() => {
                let functions = &mut described.module.functions;
                functions.truncate(functions.len() / 2);
            }
            Self::Deployed(done) if !done.modules.is_empty() => {
                let keep = done.modules.len() / 2;
                done.omitted += done.modules.len() - keep;
                done.modules.truncate(keep);
            }
            _ => return false,
        }
        true
    }
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
    /// When it is loaded.
    #[serde(default)]
    pub load: Loading,
    /// In how many workers that serve it is loaded; in the others it is cold.
    #[serde(default)]
    pub loaded_in: usize,
    /// How many workers serve.
    #[serde(default)]
    pub workers: usize,
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
    /// Most of its calls that a host may have on their way; 0 for no limit.
    #[serde(default)]
    pub concurrency: u32,
    /// How long its calls may have the core.
    pub limits: Limits,
    /// Why it is banned, where it is.
    #[serde(default)]
    pub banned: Option<String>,
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
    /// How many functions it has; of a removed one, how many it had.
    pub functions: usize,
}

/// What a deployment has done, all of it at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployed {
    /// In the order of the modules' names.
    pub modules: Vec<ModuleChange>,
    /// How many are missing from `modules`, where they did not fit an answer.
    #[serde(default)]
    pub omitted: usize,
    /// From the command to the switch, in microseconds.
    pub took_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: String, functions: usize) -> ModuleInfo {
        ModuleInfo {
            name,
            path: "/modules/x.so".to_owned(),
            digest: "0".repeat(64),
            bytes: 1,
            deployed_ms: 2,
            functions: (0..functions).map(|i| format!("{}-{i}", "f".repeat(50))).collect(),
            previous: None,
            load: Loading::FirstCall,
            loaded_in: 1,
            workers: 2,
        }
    }

    #[test]
    fn an_answer_fits_a_packet_and_says_what_is_missing() {
        let fits = |value: &Value| value.to_string().len() <= ANSWER_BYTES_MAX;
        let modules: Vec<_> = (0..1000).map(|i| module(format!("m{i}.so"), 3)).collect();
        let value = AdminAnswer::Modules { modules, more: false }.to_value();
        assert!(fits(&value));
        let AdminAnswer::Modules { modules, more } = AdminAnswer::from_value(Ok(value)) else { panic!() };
        assert!(more && modules.len() > 50);
        let value =
            AdminAnswer::Modules { modules: vec![module("m".to_owned(), 3000)], more: false }.to_value();
        assert!(fits(&value));
        let change = |i| ModuleChange {
            module: format!("m{i}.so"),
            outcome: Outcome::New,
            digest: Some("0".repeat(64)),
            before: None,
            functions: 1,
        };
        let done = Deployed { modules: (0..3000).map(change).collect(), omitted: 0, took_us: 1 };
        let value = AdminAnswer::Deployed(done).to_value();
        assert!(fits(&value));
        let AdminAnswer::Deployed(done) = AdminAnswer::from_value(Ok(value)) else { panic!() };
        assert_eq!(done.omitted + done.modules.len(), 3000);
    }

    #[test]
    fn requests_come_back_and_others_are_named() {
        let requests = [
            AdminRequest::Deploy { path: "/x".to_owned() },
            AdminRequest::List { after: None },
            AdminRequest::Remove { name: "x".to_owned() },
        ];
        for request in requests {
            assert_eq!(AdminRequest::from_value(request.to_value()), Ok(request));
        }
        let error = AdminRequest::from_value(serde_json::json!({ "dance": {} })).unwrap_err();
        assert!(error.contains("dance"), "{error}");
        let refused = AdminAnswer::from_value(Err("no".to_owned()));
        assert_eq!(refused, AdminAnswer::Refused { reason: "no".to_owned() });
    }
}
