//! What a gateway needs of a node, so that it can be tested with answers that no real node gives on demand.

use std::time::Duration;

use microfaas_node::Metrics;

use crate::Status;

/// A node, as a gateway sees it.
pub trait Backend: Send + Sync + 'static {
    /// A call under way. Dropping it takes the call back.
    type Call: Future<Output = Answer> + Send;

    /// Starts a call; returns at once.
    ///
    /// # Errors
    /// The call was not accepted and will never run.
    fn submit(&self, request: CallRequest<'_>) -> Result<Self::Call, Refused>;

    /// How the workers are.
    fn health(&self) -> Health;

    /// What calls have used. Nothing, where a backend does not count.
    fn metrics(&self) -> Metrics {
        Metrics::default()
    }
}

/// One call, to be submitted.
#[derive(Debug, Clone, Copy)]
pub struct CallRequest<'a> {
    /// Name of the function.
    pub function: &'a str,
    /// Body; copied before `submit` returns.
    pub body: &'a [u8],
    /// Metadata pairs; copied before `submit` returns.
    pub meta: &'a [(&'a str, &'a str)],
    /// Time from now until the caller no longer wants the answer; `None` for the function's own.
    pub deadline: Option<Duration>,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The verdict.
    pub status: Status,
    /// Body of the response; for `PANIC`, `FAULT` and `DENIED`, the text of what happened.
    pub body: Vec<u8>,
    /// Metadata pairs of the response.
    pub meta: Vec<(String, String)>,
    /// Number of the worker that ran it, if one did.
    pub worker: Option<u32>,
    /// CPU time of the call in the worker.
    pub cpu_ns: u64,
    /// What happened, in words, where there is more to say than the status does.
    pub detail: String,
}

/// A call that was not accepted.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The verdict.
    pub status: Status,
    /// What is wrong, in words.
    pub message: String,
    /// Where it is [`Status::Overloaded`]: when it is likely to be better.
    pub retry_after: Duration,
}

/// How many workers there are and how many of them take calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Workers that the node was started with.
    pub workers: usize,
    /// Workers that take calls now.
    pub workers_up: usize,
}
