//! A running node, as the program around it has it: calling functions, and looking at what goes on.

mod dispatch;
mod shared;
mod stats;
mod target;

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use microfaas_control::sandbox::SandboxReport;
use microfaas_lane::message::encoded_len;

pub(crate) use self::shared::Shared;
pub use self::stats::Stats;
pub use self::target::Target;
use crate::attach::{self, ConnectError};
use crate::call::{Call, FunctionHandle, Prepared, Request};
use crate::function::FunctionInfo;
use crate::metrics::Metrics;
use crate::seat::Seat;
use crate::{CallError, Completion, NodeBuilder, Response, WorkerInfo};

/// One machine's runtime, in this process: its workers and its functions. Cheap to clone; the last one dropped shuts it down at once.
///
/// It belongs to the process that has started it, or attached. A child of that which is forked may drop its copy or shut it down, which does nothing; a call there is a fault, since the
/// memory that requests are written to is not the child's, and whatever else may wait for ever, for a thread that only the parent has. It can start or attach a node of its own once it
/// has executed a program.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// Or an attached host's thread.
    supervisor: Mutex<Option<JoinHandle<()>>>,
    server: Mutex<Option<JoinHandle<()>>>,
    /// Whose those threads are.
    pid: u32,
}

impl Node {
    /// Settings for a new node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Attaches to the node that listens at a socket, as the `microfaas serve` command does: the same as a node of one's own to look at, whose workers
    /// others have, too. Where that node ends, calls on their way get [`Status::WorkerLost`](crate::Status::WorkerLost), others [`CallError::NoWorker`], and when it
    /// comes back it is attached to by itself.
    ///
    /// # Errors
    /// [`ConnectError`], within half a minute.
    pub fn connect(socket: impl AsRef<Path>) -> Result<Self, ConnectError> {
        attach::attachment::connect(socket.as_ref())
    }

    pub(crate) fn new(shared: Arc<Shared>, supervisor: JoinHandle<()>) -> Self {
        let (supervisor, server) = (Mutex::new(Some(supervisor)), Mutex::new(None));
        Self { inner: Arc::new(Inner { shared, supervisor, server, pid: std::process::id() }) }
    }

    /// This thread lets hosts attach, until the node is over.
    pub(crate) fn serves_hosts(&self, server: JoinHandle<()>) {
        *self.inner.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }

    /// See [`is_over`](Self::is_over).
    pub(crate) fn supervisor_has_ended(&self) -> bool {
        let supervisor = self.inner.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
        supervisor.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Resolves a function's name. The handle stays good whatever is deployed: each call looks what its function is then.
    ///
    /// # Errors
    /// [`CallError::UnknownFunction`].
    pub fn function(&self, name: &str) -> Result<FunctionHandle, CallError> {
        self.shared().function(name)
    }

    /// Hands a call to a worker; does not wait.
    ///
    /// # Errors
    /// [`CallError`] as far as it is known before the call starts; nothing was submitted then.
    ///
    /// # Cost
    /// No system call while the worker is awake, no allocation, no lock.
    pub fn submit(&self, function: impl Target, request: Request<'_>) -> Result<Call, CallError> {
        let meta_len = encoded_len(request.meta.iter().copied());
        let mut prepared = self.prepare(function, request.body.len(), meta_len)?;
        prepared.buffer().copy_from_slice(request.body);
        prepared.submit(request.body.len(), request.meta, request.deadline)
    }

    /// Takes a slot with room for a body and for metadata that takes `meta_bytes` when encoded, to be filled in place.
    ///
    /// # Errors
    /// [`CallError::UnknownFunction`], [`CallError::Banned`], [`CallError::TooLarge`], [`CallError::Overloaded`], [`CallError::NoWorker`], [`CallError::Closed`].
    pub fn prepare(
        &self,
        function: impl Target,
        body_max: usize,
        meta_bytes: usize,
    ) -> Result<Prepared, CallError> {
        let shared = self.shared();
        let handle = function.resolve(shared)?;
        let prepared = shared.prepare(handle.id, (body_max, meta_bytes), || {});
        if let Err(error) = &prepared {
            shared.refused(handle, error);
        }
        prepared
    }

    /// Calls a function and waits for the answer.
    ///
    /// # Errors
    /// Whatever is not an answer of the function.
    pub fn invoke<'a>(
        &self,
        function: impl Target,
        request: impl Into<Request<'a>>,
    ) -> Result<Response, CallError> {
        self.submit(function, request.into())?.wait().into_result()
    }

    /// As [`invoke`](Self::invoke), without holding the thread up while the call runs.
    ///
    /// # Errors
    /// As [`invoke`](Self::invoke).
    pub async fn invoke_async<'a>(
        &self,
        function: impl Target,
        request: impl Into<Request<'a>>,
    ) -> Result<Response, CallError> {
        let call = self.submit(function, request.into())?;
        call.await.into_result()
    }

    /// Calls a function and waits; how it ended, whatever the way.
    pub fn call<'a>(&self, function: impl Target, request: impl Into<Request<'a>>) -> Completion {
        match self.submit(function, request.into()) {
            Ok(call) => call.wait(),
            Err(error) => Completion::refused(&error),
        }
    }

    /// Takes what all workers have completed and wakes those who wait for it. Returns how many.
    ///
    /// # Cost
    /// No system call where nobody sleeps.
    pub fn poll(&self) -> usize {
        self.shared().poll()
    }

    /// A descriptor that becomes readable when there may be something to [`poll`](Self::poll), once [`arm`](Self::arm) was called. For one event
    /// loop: futures of calls on a tokio runtime count as that one. It must not be read or written.
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared().hub.events()
    }

    /// Announces that the event loop is about to sleep on [`event_fd`](Self::event_fd). False when there is something to poll already:
    /// then it must poll instead, and try again.
    ///
    /// # Cost
    /// One fence and a look for each worker.
    #[must_use]
    pub fn arm(&self) -> bool {
        self.shared().arm()
    }

    /// Ends the nap of the event loop. To be called before it polls.
    pub fn disarm(&self) {
        self.shared().disarm();
    }

    /// A look at every worker.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.shared().seats.iter().map(Seat::info).collect()
    }

    /// What a worker's latest process is sealed in by; `None` where there is no such worker.
    #[must_use]
    pub fn sandbox(&self, worker: u32) -> Option<SandboxReport> {
        self.shared().seats.get(worker as usize).map(Seat::sandbox)
    }

    /// The functions that are deployed now, in the order of their numbers.
    #[must_use]
    pub fn functions(&self) -> Vec<FunctionInfo> {
        self.shared().catalog.load().functions.clone()
    }

    /// Counts since the start. A call that a worker has answered is among those that came back, and not on its way any more, when its owner has the answer; one that was lost or
    /// cancelled may be so a moment later.
    ///
    /// # Cost
    /// Waits for threads that are just taking completions; so it is nothing for a waker to do, which one of these may be calling.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// What calls have used, by function and worker. Of a node that was attached to it has what this host knows; what the workers count, that
    /// node tells by itself.
    ///
    /// # Cost
    /// As [`stats`](Self::stats), and a page is read for each function and worker that had calls. It costs the workers nothing but cache misses.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared().metrics()
    }

    /// Takes no more calls, waits at most `grace` for those on their way, and ends the workers. What is left then is answered
    /// [`Status::Cancelled`](crate::Status::Cancelled). Returns when no worker is left. Does nothing in a forked child.
    pub fn shutdown(&self, grace: Duration) {
        self.inner.shutdown(grace);
    }
}

impl Inner {
    fn shutdown(&self, grace: Duration) {
        if std::process::id() != self.pid {
            // In a copy of that process: its threads are not here, and what they do is not to be ended from here.
            return;
        }
        self.shared.closed.store(true, Ordering::Release);
        let now = Instant::now();
        let stop_by = now.checked_add(grace).unwrap_or(now + Duration::from_secs(1 << 32));
        *self.shared.stop_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop_by);
        self.shared.hub.wake_supervisor();
        self.shared.bulletin.changed();
        let take = |thread: &Mutex<Option<JoinHandle<()>>>| {
            thread.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        if let Some(supervisor) = take(&self.supervisor) {
            // It ends in any case; a panic in it was reported by the panic hook, and its workers died with its thread.
            let _ = supervisor.join();
        }
        self.shared.bulletin.end();
        if let Some(server) = take(&self.server) {
            // As above.
            let _ = server.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}
