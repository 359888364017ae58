//! A running node: submitting calls to the least busy worker, and looking at what goes on.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use microfaas_control::sandbox::SandboxReport;
use microfaas_lane::Status;
use microfaas_lane::Violation;
use microfaas_lane::host::{ReserveError, Reserved};
use microfaas_lane::message::{encoded_len, message_len};

use crate::attach::bulletin::Bulletin;
use crate::attach::{self, ConnectError};
use crate::call::{Call, FunctionHandle, Prepared, Request};
use crate::catalog::Catalog;
use crate::command::{Command, Desk};
use crate::function::FunctionInfo;
use crate::hub::Hub;
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::names::{Entry, Names};
use crate::notice::History;
use crate::seat::Seat;
use crate::spare::SpareBoard;
use crate::stock::Stock;
use crate::{CallError, Completion, NodeBuilder, Response, Scarce, WorkerInfo};

/// One machine's runtime, in this process: its workers and its functions. Cheap to clone; the last one dropped shuts it down at once.
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
}

static NODES: AtomicU32 = AtomicU32::new(0);

/// What the node's handles and its supervisor share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Tells the function handles of nodes in one process apart.
    pub(crate) id: u32,
    /// What a function's number stands for now.
    pub(crate) names: Names,
    /// What is deployed now; the supervisor replaces it.
    pub(crate) catalog: ArcSwap<Catalog>,
    pub(crate) seats: Box<[Seat]>,
    pub(crate) hub: Arc<Hub>,
    /// The way to the supervisor.
    pub(crate) desk: Desk,
    /// What is loaded where; the supervisor keeps it.
    pub(crate) stock: Arc<Stock>,
    /// What the supervisor lets the attach server know.
    pub(crate) bulletin: Bulletin,
    pub(crate) spares: SpareBoard,
    pub(crate) closed: AtomicBool,
    /// How often the supervisor has come round.
    pub(crate) rounds: AtomicU64,
    /// When the supervisor is to stop waiting for calls that run; set once.
    pub(crate) stop_by: Mutex<Option<Instant>>,
}

/// Counts since the node was started; each is exact, together they are not from one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that came back, by status in the order of `Status::ALL`, whether or not their callers still waited at the end.
    pub completed: [u64; Status::ALL.len()],
    /// Calls that came back after their callers had gone: hung up, or past their deadline.
    pub abandoned: u64,
    /// Calls on their way now.
    pub outstanding: u64,
    /// Workers that have ended, whatever for, and were replaced.
    pub restarts: u64,
    /// Times a worker broke the lane's protocol.
    pub violations: u64,
    /// One of the latest such breaks.
    pub last_violation: Option<Violation>,
    /// Times a call was submitted while another had a long slice, whose rest was then taken from it.
    pub pokes: u64,
    /// Times a call went to another worker before it had started, or to be run again.
    pub moves: u64,
    /// Times a call was run again since its worker was lost with it: of functions that are declared idempotent.
    pub retries: u64,
}

impl Stats {
    /// Calls that came back with this status to a caller who waited.
    #[must_use]
    pub fn completed(&self, status: Status) -> u64 {
        self.completed[status as usize]
    }

    /// Calls that were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.completed.iter().sum::<u64>() + self.abandoned + self.outstanding
    }
}

/// Something that names a function of a node: a [`FunctionHandle`], resolved once, or its name.
pub trait Target: sealed::Sealed {}

mod sealed {
    use super::{CallError, FunctionHandle, Shared};

    #[expect(unnameable_types, reason = "nobody else implements it")]
    pub trait Sealed {
        #[expect(private_interfaces, reason = "nobody else calls it")]
        fn resolve(&self, shared: &Shared) -> Result<FunctionHandle, CallError>;
    }
}

impl Target for FunctionHandle {}
impl Target for str {}
impl<T: Target + ?Sized> Target for &T {}

impl sealed::Sealed for FunctionHandle {
    #[expect(private_interfaces, reason = "nobody else calls it")]
    fn resolve(&self, shared: &Shared) -> Result<FunctionHandle, CallError> {
        if self.node == shared.id { Ok(*self) } else { Err(CallError::UnknownFunction) }
    }
}

impl sealed::Sealed for str {
    #[expect(private_interfaces, reason = "nobody else calls it")]
    fn resolve(&self, shared: &Shared) -> Result<FunctionHandle, CallError> {
        shared.function(self)
    }
}

impl<T: sealed::Sealed + ?Sized> sealed::Sealed for &T {
    #[expect(private_interfaces, reason = "nobody else calls it")]
    fn resolve(&self, shared: &Shared) -> Result<FunctionHandle, CallError> {
        (**self).resolve(shared)
    }
}

impl Shared {
    /// With the end of the desk that the supervisor keeps.
    pub(crate) fn new(seats: Box<[Seat]>, hub: Arc<Hub>) -> (Arc<Self>, Receiver<Command>) {
        let (desk, inbox) = Desk::new(Arc::clone(&hub));
        let shared = Arc::new(Self {
            id: NODES.fetch_add(1, Ordering::Relaxed),
            stock: Arc::new(Stock::new(seats.len())),
            names: Names::default(),
            catalog: Arc::new(Catalog::default()).into(),
            seats,
            hub,
            desk,
            bulletin: Bulletin::default(),
            spares: SpareBoard::default(),
            closed: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            stop_by: Mutex::new(None),
        });
        shared.hub.belongs_to(&shared);
        (shared, inbox)
    }

    fn function(&self, name: &str) -> Result<FunctionHandle, CallError> {
        let id = *self.catalog.load().by_name.get(name).ok_or(CallError::UnknownFunction)?;
        Ok(FunctionHandle { node: self.id, id })
    }

    /// See [`Node::prepare`]. `held_up` is where a thread may be held up for as long as it takes to deploy, or for a host to attach to another node.
    fn prepare(
        &self,
        name: u32,
        (body_max, meta_bytes): (usize, usize),
        held_up: impl FnOnce(),
    ) -> Result<Prepared, CallError> {
        let resolve = || self.names.resolve(name).ok_or(CallError::UnknownFunction);
        // Before there is a slot: whether there is one says nothing of what is banned.
        let before = resolve()?;
        self.hub.bans.check(before.function)?;
        held_up();
        let len = message_len(body_max, meta_bytes).unwrap_or(usize::MAX);
        let (lane, reserved) = self.reserve(len, name, before)?;
        let mut prepared = Prepared::new(lane, reserved, body_max);
        // The numbers of one node's workers mean nothing to another's: those that go into the slot are looked up when its lane is known, of which the table was there first.
        let entry = resolve()?;
        if entry.function != before.function {
            self.hub.bans.check(entry.function)?;
        }
        let is_limited = entry.concurrency != 0;
        if is_limited && !self.hub.quotas.admit(name, entry.concurrency) {
            return Err(self.overloaded(Scarce::Concurrency));
        }
        prepared.call(entry, History::new(name, is_limited));
        Ok(prepared)
    }

    /// Takes a slot for a request of `len` bytes at the worker that is the best for it, or at another one where it has no slot.
    fn reserve(&self, len: usize, name: u32, function: Entry) -> Result<(Arc<Lane>, Reserved), CallError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(CallError::Closed);
        }
        let best = self.best_for(function).ok_or(CallError::NoWorker)?;
        let mut scarce = None;
        let count = self.seats.len();
        for i in (best..count).chain(0..best) {
            let Some(lane) = self.seats[i].lane() else { continue };
            if lane.is_shut() {
                continue;
            }
            match lane.host.reserve(len) {
                Ok(reserved) if !lane.may_have(reserved.slot(), name) && self.has_others(name) => {
                    lane.host.cancel_reservation(reserved);
                    scarce = Some(Scarce::Share);
                }
                Ok(reserved) => {
                    lane.load().add();
                    self.sends(i, function);
                    return Ok((lane, reserved));
                }
                Err(ReserveError::TooLarge { max }) => return Err(CallError::TooLarge { len, max }),
                Err(ReserveError::Exhausted) => scarce = scarce.or(Some(Scarce::Slots)),
            }
        }
        Err(scarce.map_or(CallError::NoWorker, |about| self.overloaded(about)))
    }

    /// Whether there are functions beside the one of this name, for which slots can be kept.
    #[cold]
    fn has_others(&self, name: u32) -> bool {
        self.catalog.load().functions.iter().any(|info| info.id != name)
    }

    /// What a caller is told who gets nothing now.
    #[cold]
    fn overloaded(&self, about: Scarce) -> CallError {
        let (mut stats, mut outstanding) = (Stats::default(), 0);
        for seat in &self.seats {
            seat.counters.add_to(&mut stats);
            outstanding += u64::from(seat.load.outstanding());
        }
        let done = stats.completed.iter().sum::<u64>() + stats.abandoned;
        CallError::Overloaded { about, retry_after: self.hub.pace.retry_after(done, outstanding) }
    }

    /// The first of the least busy, so that a lone caller keeps to one worker, whose caches are warm. One that is about to end only where there is no other.
    pub(crate) fn least_busy(&self) -> Option<usize> {
        let seats = self.seats.iter().enumerate();
        let loads = seats.filter_map(|(i, seat)| Some((seat.load.is_leaving(), seat.load.get()?, i)));
        loads.min().map(|(_, _, i)| i)
    }
}

impl Node {
    /// Settings for a new node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Attaches to the node that listens at a socket, as the `microfaas serve` command does: the same as a node of one's own to look at, whose workers
    /// others have, too. Where that node ends, calls on their way get [`Status::WorkerLost`], others [`CallError::NoWorker`], and when it
    /// comes back it is attached to by itself.
    ///
    /// # Errors
    /// [`ConnectError`], within half a minute.
    pub fn connect(socket: impl AsRef<Path>) -> Result<Self, ConnectError> {
        attach::attachment::connect(socket.as_ref())
    }

    pub(crate) fn new(shared: Arc<Shared>, supervisor: JoinHandle<()>) -> Self {
        let (supervisor, server) = (Mutex::new(Some(supervisor)), Mutex::new(None));
        Self { inner: Arc::new(Inner { shared, supervisor, server }) }
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

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// What calls have used, by function and worker. Of a node that was attached to it has what this host knows; what the workers count, that
    /// node tells by itself.
    ///
    /// # Cost
    /// A page is read for each function and worker that had calls. It costs the workers nothing but cache misses.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared().metrics()
    }

    /// Takes no more calls, waits at most `grace` for those on their way, and ends the workers. What is left then is answered
    /// [`Status::Cancelled`]. Returns when no worker is left.
    pub fn shutdown(&self, grace: Duration) {
        self.inner.shutdown(grace);
    }
}

impl Inner {
    fn shutdown(&self, grace: Duration) {
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

impl Shared {
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for seat in &self.seats {
            seat.counters.add_to(&mut stats);
            let info = seat.info();
            stats.outstanding += u64::from(info.outstanding);
            stats.restarts += u64::from(info.restarts);
        }
        stats
    }

    /// Counts a call that was not accepted.
    #[cold]
    fn refused(&self, handle: FunctionHandle, error: &CallError) {
        let number = self.names.resolve(handle.id).map_or(u32::MAX, |entry| entry.function);
        self.hub.decided.count(number, error.status());
    }

    pub(crate) fn poll(&self) -> usize {
        self.lanes().map(|lane| lane.drain()).sum()
    }

    /// Whether no worker is left and none will come.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_stopped(&self) -> bool {
        self.closed.load(Ordering::Relaxed) && self.lanes().next().is_none()
    }

    pub(crate) fn arm(&self) -> bool {
        self.hub.arm();
        for lane in self.lanes() {
            lane.host.host_words().event_epoch.doze_shared();
            // This look must be a real one, so it waits for the reader: what is in the ring now, the worker does not ring for.
            if lane.has_news(&lane.lock()) {
                return false;
            }
        }
        true
    }

    pub(crate) fn disarm(&self) {
        self.hub.disarm();
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = Arc<Lane>> {
        self.seats.iter().filter_map(Seat::lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moves::tests::{lane, node};

    /// As when the node of an attached host is restarted with other functions.
    #[test]
    fn a_caller_who_was_held_up_names_the_function_as_the_lanes_worker_knows_it() {
        let entry = |function| Some(Entry { function, deadline_ns: u64::MAX, concurrency: 0, ..Entry::NONE });
        let (shared, mut old) = node(1);
        shared.names.publish(&[entry(5), entry(6)]);
        let (mut old, mut new) = (old.remove(0), None);
        shared.seats[0].open(Arc::clone(&old.0));
        let restart = || {
            shared.seats[0].close();
            shared.names.publish(&[entry(6), entry(5)]);
            let (lane, worker) = lane(&shared, 0);
            shared.seats[0].open(lane);
            new = Some(worker);
        };
        let prepared = shared.prepare(0, (8, 0), restart).unwrap();
        let call = prepared.submit(8, &[], None).unwrap();
        assert_eq!((old.1.next_function(), new.unwrap().next_function()), (None, Some(6)));
        drop(call);
        // One that is gone, too; the slot comes back.
        let gone = || shared.names.publish(&[None, entry(5)]);
        assert!(matches!(shared.prepare(0, (8, 0), gone), Err(CallError::UnknownFunction)));
        assert_eq!(shared.seats[0].load.outstanding(), 1, "the call that the worker has not answered");
    }
}
