//! The end of a call, as its caller gets it: everything copied into private memory and checked.
#![expect(unsafe_code, reason = "the length of a vector that the lane has filled")]

use std::borrow::Cow;

use microfaas_lane::Status;
use microfaas_lane::host::Ticket;
use microfaas_lane::message::{META_ALIGN, Pairs};
use microfaas_lane::slots::Outcome;

use crate::CallError;
use crate::lane::Lane;

/// Of a call on its way when the node ended that its host was attached to.
const NODE_GONE: &str = "the node is gone; the call may have run";
const STOPPED: &str = "the node has stopped, and the call's time to end was up; it may have run";
const STOPPED_BEFORE: &str = "the node has stopped before the call started";
/// Most characters of [`Completion::detail`].
const DETAIL_CHARS_MAX: usize = 1024;

/// Checked metadata of a response: name and value pairs that can be put into HTTP headers as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// A block that [`Pairs::parse`] has taken, or nothing.
    block: Vec<u8>,
}

impl Meta {
    fn pairs(&self) -> Pairs<'_> {
        Pairs::parse(&self.block).unwrap_or_default()
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs().iter()
    }

    /// Value of the first pair of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs().get(name)
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// The pairs in the encoding of `microfaas_lane::message`, checked.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.block
    }
}

/// A function's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// The body.
    pub body: Vec<u8>,
    /// Metadata.
    pub meta: Meta,
}

/// How a call ended, whatever the way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// The verdict.
    pub status: Status,
    /// The response's body for [`Status::Ok`] and [`Status::Error`], else empty.
    pub body: Vec<u8>,
    /// The response's metadata for [`Status::Ok`] and [`Status::Error`], else empty.
    pub meta: Meta,
    /// The worker that had the call; `None` where none ever did.
    pub worker: Option<u32>,
    /// Time on a core in nanoseconds, as the worker says, at most `total_ns`. A call that was over within its first slice is measured by the cycle counter: time for which the kernel
    /// gave its core to others is in it. From one that took longer it is taken off.
    pub cpu_ns: u64,
    /// Time from submitting to taking the answer, in nanoseconds.
    pub total_ns: u64,
    /// The call certainly did not run.
    pub never_started: bool,
    /// What there is to say about it in words, one line of printable text; empty for [`Status::Ok`].
    pub detail: Cow<'static, str>,
}

impl Default for Completion {
    /// An empty one, for reuse by [`Call::wait_into`](crate::Call::wait_into).
    fn default() -> Self {
        Self::decided(Status::Cancelled, "", false, None)
    }
}

impl Completion {
    /// Decided by the host.
    pub(crate) fn decided(
        status: Status,
        detail: &'static str,
        never_started: bool,
        worker: Option<u32>,
    ) -> Self {
        Self {
            status,
            body: Vec::new(),
            meta: Meta::default(),
            worker,
            cpu_ns: 0,
            total_ns: 0,
            never_started,
            detail: Cow::Borrowed(detail),
        }
    }

    /// Of a call that could not be submitted.
    #[must_use]
    pub fn refused(error: &CallError) -> Self {
        let mut completion = Self::decided(error.status(), "", true, None);
        completion.detail = Cow::Owned(error.to_string());
        completion
    }

    /// The answer, or how the call failed.
    ///
    /// # Errors
    /// Whatever is not [`Status::Ok`].
    pub fn into_result(self) -> Result<Response, CallError> {
        if self.status == Status::Ok {
            return Ok(Response { body: self.body, meta: self.meta });
        }
        Err(self.to_error())
    }

    fn to_error(&self) -> CallError {
        let message = self.detail.clone().into_owned();
        match self.status {
            Status::Ok | Status::Error => CallError::Function { message },
            Status::Panic => CallError::Panic { message },
            Status::Timeout => CallError::Timeout,
            Status::Expired => CallError::Expired,
            Status::Oom => CallError::Oom { message },
            Status::Fault => CallError::Fault { message },
            Status::Denied => CallError::Denied { message },
            Status::TooLarge => CallError::ResponseTooLarge,
            Status::NotFound => CallError::UnknownFunction,
            Status::LoadFailed => CallError::LoadFailed { message },
            Status::Banned => CallError::Banned,
            Status::Overloaded => CallError::NoWorker,
            Status::WorkerLost => CallError::WorkerLost { never_started: self.never_started },
            _ => CallError::Cancelled,
        }
    }

    /// Starts over, keeping the buffers.
    fn reset(&mut self, status: Status, lane: &Lane) {
        self.status = status;
        self.body.clear();
        self.meta.block.clear();
        self.worker = Some(lane.worker);
        (self.cpu_ns, self.total_ns, self.never_started) = (0, 0, false);
        self.detail = Cow::Borrowed("");
    }

    /// Takes the outcome of a call whose slot the caller still owns.
    pub(crate) fn take(&mut self, lane: &Lane, ticket: Ticket, outcome: &Outcome, total_ns: u64) {
        self.reset(lane.verdict(outcome.status), lane);
        self.total_ns = total_ns;
        self.cpu_ns = outcome.cpu_ns.min(total_ns);
        self.never_started = outcome.never_started;
        append(&mut self.body, lane, ticket, outcome, 0, outcome.body_len as usize);
        match self.status {
            Status::Ok => self.take_meta(lane, ticket, outcome),
            Status::Error => {
                self.take_meta(lane, ticket, outcome);
                if self.detail.is_empty() {
                    self.detail = Cow::Owned(printable(&self.body));
                }
            }
            _ => {
                self.detail = match self.body.is_empty() {
                    true if lane.lost_its_node() => Cow::Borrowed(NODE_GONE),
                    true if lane.was_closed() && self.status == Status::Cancelled => {
                        Cow::Borrowed(if self.never_started { STOPPED_BEFORE } else { STOPPED })
                    }
                    true => Cow::Borrowed(explain(self.status, self.never_started)),
                    false => Cow::Owned(printable(&self.body)),
                };
                self.body.clear();
            }
        }
    }

    /// The host gave up waiting.
    pub(crate) fn give_up(&mut self, lane: &Lane, status: Status, never_started: bool, total_ns: u64) {
        self.reset(status, lane);
        self.total_ns = total_ns;
        self.never_started = never_started;
        self.detail = Cow::Borrowed(explain(status, never_started));
    }

    /// Metadata that is not valid makes the call fail: nothing of it goes further.
    fn take_meta(&mut self, lane: &Lane, ticket: Ticket, outcome: &Outcome) {
        let len = outcome.meta_len as usize;
        if len == 0 {
            return;
        }
        let start = (outcome.body_len as usize).next_multiple_of(META_ALIGN);
        append(&mut self.meta.block, lane, ticket, outcome, start, len);
        if Pairs::parse(&self.meta.block).is_err() {
            self.status = Status::Error;
            self.body.clear();
            self.meta.block.clear();
            self.detail = Cow::Borrowed("invalid response metadata");
        }
    }
}

/// Copies `len` bytes of the response to the end of `to`.
fn append(to: &mut Vec<u8>, lane: &Lane, ticket: Ticket, outcome: &Outcome, from: usize, len: usize) {
    to.reserve(len);
    let room = &mut to.spare_capacity_mut()[..len];
    lane.host.copy_response(ticket, outcome, from, room);
    let filled = to.len() + len;
    // SAFETY: `copy_response` has filled all of `room`, which are the `len` bytes behind the vector's length, within its capacity.
    unsafe { to.set_len(filled) };
}

/// Text of a worker: it may say anything, so only what can be printed on one line is kept.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let end = bytes.len().min(4 * DETAIL_CHARS_MAX);
    let text = String::from_utf8_lossy(&bytes[..end]);
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(DETAIL_CHARS_MAX).collect::<String>().trim().to_owned()
}

fn explain(status: Status, never_started: bool) -> &'static str {
    match (status, never_started) {
        (Status::Expired, _) => "the deadline passed before the call started",
        (Status::Timeout, _) => "the deadline passed while the call ran",
        (Status::WorkerLost, true) => "the worker was lost before the call started",
        (Status::WorkerLost, false) => "the worker was lost; the call may have run",
        (Status::Cancelled, _) => "cancelled",
        (Status::Oom, _) => "out of memory",
        (Status::TooLarge, _) => "the response is over its limit",
        (Status::NotFound, _) => "the worker does not have the function",
        (Status::Banned, _) => "the function is banned for what its calls did",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_is_one_printable_line() {
        assert_eq!(printable(b"a\nb\x1b[31m\xff "), "a b [31m\u{fffd}");
        assert_eq!(printable(&[b'x'; 5000]).len(), DETAIL_CHARS_MAX);
    }
}
