//! A call on its way, and a request that is being written.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use microfaas_lane::Status;
use microfaas_lane::host::{Reserved, Ticket};
use microfaas_lane::message::{Encoder, META_ALIGN, encoded_len, message_len};
use microfaas_lane::slots::Outcome;
use microfaas_sys::clock::{self, monotonic_ns, now_ns};

use crate::lane::Lane;
use crate::moves::Parting;
use crate::names::Entry;
use crate::notice::History;
use crate::park::Waited;
use crate::{CallError, Completion};

/// More than [`now_ns`] is ever behind the kernel's clock.
const CLOCK_ERROR_NS: u64 = 1_000_000;

/// What to ask a function.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// The body.
    pub body: &'a [u8],
    /// Metadata: name and value pairs, see `microfaas_lane::message` for what is allowed.
    pub meta: &'a [(&'a str, &'a str)],
    /// How long the caller waits from now on; the function's default where `None`, no limit for [`Duration::MAX`].
    pub deadline: Option<Duration>,
}

impl<'a> Request<'a> {
    /// A request of this body, without metadata, with the function's deadline.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { body, ..Self::default() }
    }

    /// Sets [`meta`](Self::meta).
    #[must_use]
    pub fn meta(mut self, meta: &'a [(&'a str, &'a str)]) -> Self {
        self.meta = meta;
        self
    }

    /// Sets [`deadline`](Self::deadline).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<'a> From<&'a [u8]> for Request<'a> {
    fn from(body: &'a [u8]) -> Self {
        Self::new(body)
    }
}

/// A function to call: its name, resolved once. Plain numbers; of one node only, and good for the life of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionHandle {
    pub(crate) node: u32,
    pub(crate) id: u32,
}

impl FunctionHandle {
    /// The function's number in its node, which its name keeps.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

/// Nanoseconds of a duration; the longest there is means no limit.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A slot that is being filled: write into [`buffer`](Self::buffer), as a socket may do directly, then [`submit`](Self::submit).
/// Dropping it gives the slot back.
pub struct Prepared {
    /// `None` once it was submitted.
    place: Option<(Arc<Lane>, Reserved)>,
    function: Entry,
    /// Of the function, and whether the call counts against its limit.
    history: History,
    body_max: usize,
}

impl Prepared {
    pub(crate) fn new(lane: Arc<Lane>, reserved: Reserved, body_max: usize) -> Self {
        let history = History::new(0, false);
        Self { place: Some((lane, reserved)), function: Entry::NONE, history, body_max }
    }

    /// Says what is called. To be looked up when the slot is there: then the numbers are those that the lane's worker knows.
    pub(crate) fn call(&mut self, function: Entry, history: History) {
        (self.function, self.history) = (function, history.of(function));
    }

    /// Room for the body. Holds whatever an earlier request of the slot left there.
    #[must_use]
    pub fn buffer(&mut self) -> &mut [u8] {
        let body_max = self.body_max;
        self.whole_buffer().get_mut(..body_max).unwrap_or_default()
    }

    fn whole_buffer(&mut self) -> &mut [u8] {
        match &mut self.place {
            Some((lane, reserved)) => lane.host.buffer(reserved),
            None => &mut [],
        }
    }

    /// Hands the call to the worker: the first `body_len` bytes of the buffer, and metadata. `deadline` as in [`Request`].
    ///
    /// # Errors
    /// [`CallError::TooLarge`] where body and metadata are longer than was prepared for, [`CallError::Metadata`], [`CallError::Expired`] where
    /// the deadline is now. The slot goes back.
    pub fn submit(
        mut self,
        body_len: usize,
        meta: &[(&str, &str)],
        deadline: Option<Duration>,
    ) -> Result<Call, CallError> {
        let meta_len = self.write_meta(body_len, meta).map_err(|error| self.refuse(error))?;
        let (now_ns, submitted_cycles) = clock::now();
        let wait_ns = deadline.map_or(self.function.deadline_ns, nanoseconds);
        if wait_ns == 0 {
            return Err(self.refuse(CallError::Expired));
        }
        let fits = "both were checked against the slot's size, which is at most 1 GiB";
        let request = microfaas_lane::host::Request {
            function: self.function.function,
            body_len: u32::try_from(body_len).expect(fits),
            meta_len: u32::try_from(meta_len).expect(fits),
            deadline_ns: now_ns.saturating_add(wait_ns),
            flags: 0,
            submitted_cycles,
        };
        let (lane, reserved) = self.place.take().expect("taken here only, where the value ends");
        let ticket = lane.submit(reserved, &request, now_ns, self.history);
        Ok(Call { lane: Some(lane), ticket, submitted_ns: now_ns, deadline_ns: request.deadline_ns })
    }

    /// Counts a call that is not accepted.
    #[cold]
    fn refuse(&self, error: CallError) -> CallError {
        if let Some((lane, _)) = &self.place {
            lane.hub.decided.count(self.function.function, error.status());
        }
        error
    }

    /// Writes the metadata behind the body; returns its length.
    fn write_meta(&mut self, body_len: usize, meta: &[(&str, &str)]) -> Result<usize, CallError> {
        let body_max = self.body_max;
        let buffer = self.whole_buffer();
        let meta_len = encoded_len(meta.iter().copied());
        let len = message_len(body_len, meta_len).unwrap_or(usize::MAX);
        if body_len > body_max || len > buffer.len() {
            return Err(CallError::TooLarge {
                len,
                max: buffer.len().min(body_max.saturating_add(meta_len)),
            });
        }
        if meta.is_empty() {
            return Ok(0);
        }
        let mut encoder = Encoder::new(&mut buffer[body_len.next_multiple_of(META_ALIGN)..]);
        for (name, value) in meta {
            encoder.push(name, value).map_err(CallError::Metadata)?;
        }
        Ok(encoder.finish())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some((lane, reserved)) = self.place.take() {
            if self.history.is_limited() {
                lane.hub.quotas.release(self.history.name());
            }
            lane.host.cancel_reservation(reserved);
            lane.load().sub(1);
        }
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("function", &self.function.function)
            .field("body_max", &self.body_max)
            .finish()
    }
}

/// A call on its way. It can be polled, waited for or awaited; dropping it takes it back where it has not started and forgets it otherwise.
#[must_use = "dropping a call cancels it"]
pub struct Call {
    /// `None` once the answer was taken.
    lane: Option<Arc<Lane>>,
    ticket: Ticket,
    submitted_ns: u64,
    deadline_ns: u64,
}

impl Call {
    /// The answer, if it is there; looks for it in the completion ring. `None` after it was taken, too.
    ///
    /// # Cost
    /// No system call.
    pub fn try_take(&mut self) -> Option<Completion> {
        let mut completion = Completion::default();
        self.try_take_into(&mut completion).then_some(completion)
    }

    /// As [`try_take`](Self::try_take), into buffers that are used again. True when the answer was taken; `completion` is unchanged otherwise.
    pub fn try_take_into(&mut self, completion: &mut Completion) -> bool {
        loop {
            let Some(lane) = &self.lane else { return false };
            let outcome = lane.host.outcome(self.ticket).or_else(|| {
                lane.drain();
                lane.host.outcome(self.ticket)
            });
            if self.follow() {
                continue;
            }
            match outcome {
                Some(outcome) => self.take(&outcome, completion),
                None if self.is_overdue() => self.expire(completion),
                None => return false,
            }
            return true;
        }
    }

    /// Looks after the call where it went. False where it is still in its lane: then its outcome, if there is one, is the call's.
    #[inline]
    fn follow(&mut self) -> bool {
        let Some((lane, ticket)) = self.lane.as_ref().and_then(|lane| lane.follow(self.ticket)) else {
            return false;
        };
        (self.lane, self.ticket) = (Some(lane), ticket);
        true
    }

    /// Waits for the answer: at most until the call's deadline.
    pub fn wait(self) -> Completion {
        let mut completion = Completion::default();
        self.wait_into(&mut completion);
        completion
    }

    /// As [`wait`](Self::wait), into buffers that are used again: allocates only where they are too small.
    pub fn wait_into(mut self, completion: &mut Completion) {
        loop {
            let Some(lane) = &self.lane else { return };
            let waited = lane.wait(self.ticket, self.deadline_ns);
            if self.follow() {
                continue;
            }
            match waited {
                Waited::Settled(outcome) => return self.take(&outcome, completion),
                Waited::TimeUp => return self.expire(completion),
                Waited::Woken => {}
            }
        }
    }

    /// Takes the call back. True when it had not started: it never will. Otherwise it goes on and its answer is dropped.
    #[must_use]
    pub fn cancel(mut self) -> bool {
        self.let_go()
    }

    /// The worker that has the call, as far as its owner has looked; `None` once the answer was taken.
    #[must_use]
    pub fn worker(&self) -> Option<u32> {
        self.lane.as_ref().map(|lane| lane.worker)
    }

    fn take(&mut self, outcome: &Outcome, completion: &mut Completion) {
        let Some(lane) = self.lane.take() else { return };
        let total_ns = now_ns().saturating_sub(self.submitted_ns);
        completion.take(&lane, self.ticket, outcome, total_ns);
        lane.release(self.ticket, outcome);
    }

    fn is_overdue(&self) -> bool {
        is_past(self.deadline_ns, now_ns, monotonic_ns)
    }

    /// The deadline has passed. An answer that has come at the last moment is taken.
    fn expire(&mut self, completion: &mut Completion) {
        let Some(lane) = &self.lane else { return };
        let is_ours = lane.host.take_back(self.ticket);
        if !is_ours {
            let outcome = lane.host.outcome(self.ticket);
            if lane.went.any() && self.follow() {
                return self.expire(completion);
            }
            if let Some(outcome) = outcome {
                return self.take(&outcome, completion);
            }
        }
        let Some(lane) = self.lane.take() else { return };
        let function = lane.note(self.ticket).function.load(Ordering::Relaxed);
        let Parting { is_ours, never_started } = lane.let_go(self.ticket, is_ours);
        let status = if never_started { Status::Expired } else { Status::Timeout };
        if is_ours {
            lane.hub.decided.count(function, status);
        }
        let total_ns = now_ns().saturating_sub(self.submitted_ns);
        completion.give_up(&lane, status, never_started, total_ns);
    }

    fn let_go(&mut self) -> bool {
        let Some(lane) = self.lane.take() else { return false };
        let function = lane.note(self.ticket).function.load(Ordering::Relaxed);
        let Parting { is_ours, never_started } = lane.give_up(self.ticket);
        if is_ours {
            lane.hub.decided.count(function, Status::Cancelled);
        }
        never_started
    }
}

/// Whether a deadline has passed. The kernel's clock has the last word, and is asked once the other one, which may go a little behind it, is near: who is woken at
/// the deadline, by the kernel's clock, is not woken again soon.
fn is_past(deadline_ns: u64, now_ns: impl Fn() -> u64, exact_ns: impl Fn() -> u64) -> bool {
    deadline_ns != u64::MAX
        && now_ns().saturating_add(CLOCK_ERROR_NS) >= deadline_ns
        && exact_ns() >= deadline_ns
}

impl Future for Call {
    type Output = Completion;

    /// Ready with the answer, or when the deadline has passed.
    ///
    /// # Panics
    /// Where it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Completion> {
        if let Some(completion) = self.try_take() {
            return Poll::Ready(completion);
        }
        loop {
            let lane = self.lane.as_ref().expect("a call is not polled after it was ready");
            let place = (Arc::as_ptr(lane), self.ticket);
            lane.note(self.ticket).leave_waker(context.waker());
            crate::driver::ensure(&lane.hub);
            // What was settled before the waker was left is found here; what comes later finds the waker.
            if let Some(completion) = self.try_take() {
                return Poll::Ready(completion);
            }
            // Where the call has gone meanwhile, nobody knows of the waker.
            if self.lane.as_ref().is_some_and(|lane| (Arc::as_ptr(lane), self.ticket) == place) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worker = self.worker();
        f.debug_struct("Call").field("ticket", &self.ticket).field("worker", &worker).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_by_the_kernels_clock() {
        let (deadline, error) = (1_000_000_000, CLOCK_ERROR_NS / 2);
        for cheap in [deadline - error, deadline, deadline + error] {
            assert!(is_past(deadline, || cheap, || deadline), "it has passed, whatever {cheap} says");
            assert!(!is_past(deadline, || cheap, || deadline - 1), "it has not, whatever {cheap} says");
        }
        let far = || -> u64 { panic!("the kernel is not asked long before") };
        assert!(!is_past(deadline, || deadline / 2, far) && !is_past(u64::MAX, || u64::MAX, far));
    }
}
