//! What can go wrong: starting a node, and a call.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use microfaas_lane::Status;
use microfaas_lane::layout::GeometryError;
use microfaas_lane::message::MessageError;
use microfaas_manifest::InspectError;
use thiserror::Error;

use crate::DeployError;
use crate::attach::SocketError;

/// Why a node was not started. Each prints as one line; nothing is left running.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A module directory cannot be listed.
    #[error("module directory `{}`: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not a module that this runtime can use.
    #[error("module `{}`: {source}", path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// Why.
        source: InspectError,
    },
    /// Two modules have a function of the same name.
    #[error("function `{name}` is in both `{}` and `{}`", first.display(), second.display())]
    DuplicateFunction {
        /// The name.
        name: String,
        /// The module that was read first.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// There is nothing to call.
    #[error("no functions: {looked}")]
    NoFunctions {
        /// Where modules were looked for.
        looked: String,
    },
    /// Settings were given for a function that no module has.
    #[error("settings for function `{name}`, which no module has")]
    UnknownFunction {
        /// The name.
        name: String,
    },
    /// The modules do not go together.
    #[error(transparent)]
    Modules(DeployError),
    /// A setting is outside its range.
    #[error("{field} is {value}, allowed are {min} to {max}")]
    Range {
        /// The setting.
        field: &'static str,
        /// What was given.
        value: u64,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// The lane's sizes are outside their ranges.
    #[error("lane geometry: {0}")]
    Geometry(#[from] GeometryError),
    /// The program of the worker was not found.
    #[error("worker program not found, looked for {}", list(looked))]
    WorkerNotFound {
        /// The places, in order.
        looked: Vec<PathBuf>,
    },
    /// Something that the node needs of the system was refused.
    #[error("{what}: {source}")]
    System {
        /// What it was for.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Hosts could not attach.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A worker did not come up.
    #[error("worker {worker}: {source}")]
    Worker {
        /// Its number.
        worker: u32,
        /// Why.
        source: LaunchError,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
}

/// Why a worker did not come up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The program could not be started.
    #[error("cannot start `{}`: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The shared memory could not be made.
    #[error("cannot make the shared memory: {0}")]
    Memory(io::Error),
    /// The control socket broke.
    #[error("control socket: {0}")]
    Socket(io::Error),
    /// It ended before it was ready.
    #[error("ended with {0} before it was ready")]
    Died(microfaas_sys::process::Exit),
    /// It did not answer in time.
    #[error("no answer to {step} in {seconds} s")]
    Silent {
        /// The message that was not answered.
        step: &'static str,
        /// How long the node waited.
        seconds: u64,
    },
    /// It answered something else than it was asked.
    #[error("answered {step} with a packet that does not belong there")]
    Protocol {
        /// The message that was answered.
        step: &'static str,
    },
    /// It gave up, with this reason.
    #[error("{0}")]
    Fatal(String),
    /// It refused a module.
    #[error("cannot load module `{}`: {reason}", path.display())]
    LoadFailed {
        /// The module's file.
        path: PathBuf,
        /// The worker's reason.
        reason: String,
    },
}

/// What an overloaded node has none of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Scarce {
    /// Every slot that would do is in use.
    #[error("no slot is free")]
    Slots,
    /// The last slots are kept for functions that have less than their share.
    #[error("the function has its share of the slots")]
    Share,
    /// The function's own limit is reached.
    #[error("the function has as many calls on their way as it may")]
    Concurrency,
}

/// How a call failed. [`status`](Self::status) is the same in one word.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// No module has that function, or the handle is of another node.
    #[error("no function has that name")]
    UnknownFunction,
    /// Body and metadata of the request are too long.
    #[error("request of {len} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes of the request.
        len: usize,
        /// Most that a slot holds.
        max: usize,
    },
    /// The request's metadata is not valid.
    #[error("request metadata: {0}")]
    Metadata(MessageError),
    /// Every slot that would do is in use, or is kept for other functions, or the function has as many calls on their way as it may.
    #[error("overloaded: {about}, try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// What is used up.
        about: Scarce,
        /// When it is likely to be better, going by how fast calls have come back of late; 1 ms to 10 s.
        retry_after: Duration,
    },
    /// No worker is up at the moment; try again later.
    #[error("overloaded: no worker is up")]
    NoWorker,
    /// The node is shutting down and takes no calls.
    #[error("the node is shutting down")]
    Closed,
    /// The deadline passed before the call started; it never ran.
    #[error("the deadline passed before the call started")]
    Expired,
    /// The deadline passed, or the budget was spent, while the call ran.
    #[error("the deadline passed while the call ran")]
    Timeout,
    /// The function returned an error.
    #[error("function error: {message}")]
    Function {
        /// What it says, where that is text.
        message: String,
    },
    /// The function panicked.
    #[error("panic: {message}")]
    Panic {
        /// The panic's message.
        message: String,
    },
    /// The worker died with the call in its hands.
    #[error("the worker was lost{}", if *never_started { " before the call started" } else { "; the call may have run" })]
    WorkerLost {
        /// The call certainly did not run.
        never_started: bool,
    },
    /// The caller took it back, or the node was shut down.
    #[error("cancelled")]
    Cancelled,
    /// It asked for more memory than a call may have.
    #[error("out of memory: {message}")]
    Oom {
        /// More about it; may be empty.
        message: String,
    },
    /// It broke the rules of the machine.
    #[error("fault: {message}")]
    Fault {
        /// Which one.
        message: String,
    },
    /// It made a system call that the sandbox forbids.
    #[error("denied: {message}")]
    Denied {
        /// Which one.
        message: String,
    },
    /// The function is banned: too many of its calls faulted, or its module broke memory safety.
    #[error("the function is banned for what its calls did")]
    Banned,
    /// The function's module could not be loaded.
    #[error("the module could not be loaded: {message}")]
    LoadFailed {
        /// Why.
        message: String,
    },
    /// The response is over its limit.
    #[error("the response is over its limit")]
    ResponseTooLarge,
}

impl CallError {
    /// The same as a status of the protocol.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::UnknownFunction => Status::NotFound,
            Self::TooLarge { .. } | Self::ResponseTooLarge => Status::TooLarge,
            Self::Metadata(_) | Self::Function { .. } => Status::Error,
            Self::Overloaded { .. } | Self::NoWorker => Status::Overloaded,
            Self::Closed | Self::Cancelled => Status::Cancelled,
            Self::Expired => Status::Expired,
            Self::Timeout => Status::Timeout,
            Self::Panic { .. } => Status::Panic,
            Self::WorkerLost { .. } => Status::WorkerLost,
            Self::Oom { .. } => Status::Oom,
            Self::Fault { .. } => Status::Fault,
            Self::Denied { .. } => Status::Denied,
            Self::Banned => Status::Banned,
            Self::LoadFailed { .. } => Status::LoadFailed,
        }
    }
}
