//! A real node behind a gateway.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use microfaas_node::{Call, CallError, Completion, Metrics, Node, Request, WorkerState};

use crate::backend::{Answer, Backend, CallRequest, Health, Refused};

/// A call of a node, whose answer is made one of the gateway.
#[derive(Debug)]
pub struct NodeCall(Call);

impl Future for NodeCall {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        Pin::new(&mut self.0).poll(context).map(answer)
    }
}

impl Backend for Node {
    type Call = NodeCall;

    fn submit(&self, request: CallRequest<'_>) -> Result<NodeCall, Refused> {
        let CallRequest { function, body, meta, deadline } = request;
        match Node::submit(self, function, Request { body, meta, deadline }) {
            Ok(call) => Ok(NodeCall(call)),
            Err(error) => Err(refused(&error, function)),
        }
    }

    fn health(&self) -> Health {
        let workers = self.workers();
        let up = workers.iter().filter(|worker| worker.state == WorkerState::Serving).count();
        Health { workers: workers.len(), workers_up: up }
    }

    fn metrics(&self) -> Metrics {
        Node::metrics(self)
    }
}

fn answer(completion: Completion) -> Answer {
    Answer {
        status: completion.status,
        meta: completion.meta.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: completion.body,
        worker: completion.worker,
        cpu_ns: completion.cpu_ns,
        detail: completion.detail.into_owned(),
    }
}

fn refused(error: &CallError, function: &str) -> Refused {
    let message = match error {
        CallError::UnknownFunction => format!("no function is named `{function}`"),
        other => other.to_string(),
    };
    let retry_after = match error {
        CallError::Overloaded { retry_after, .. } => *retry_after,
        _ => Duration::ZERO,
    };
    Refused { status: error.status(), message, retry_after }
}
