//! One worker's place in the node: it stays while workers and their lanes come and go.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use crossbeam_utils::CachePadded;
use microfaas_control::sandbox::SandboxReport;
use microfaas_lane::host::Completed;
use microfaas_lane::{Status, Violation};

use crate::lane::Lane;
use crate::metrics::Tally;

/// What dispatch looks at; one line for each worker.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Calls reserved or submitted and not yet settled, of all lanes that this place ever had.
    outstanding: AtomicU32,
    /// There is a lane to submit to.
    open: AtomicBool,
    /// Its worker begins nothing more.
    leaving: AtomicBool,
}

impl Load {
    pub(crate) fn add(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, count: u32) {
        self.outstanding.fetch_sub(count, Ordering::Relaxed);
    }

    /// Outstanding calls; `None` where nothing can be submitted.
    pub(crate) fn get(&self) -> Option<u32> {
        self.open.load(Ordering::Relaxed).then(|| self.outstanding())
    }

    /// The worker ends when it has done what it has begun. Others are preferred.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether what is submitted here is not begun before there is another worker.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The lane was found to be of no more use; its place gets another.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }
}

/// Calls that came back.
#[derive(Debug, Default)]
struct Ended {
    completed: [AtomicU64; Status::ALL.len()],
    abandoned: AtomicU64,
}

impl Ended {
    fn counter(&self, call: &Completed) -> &AtomicU64 {
        if call.abandoned { &self.abandoned } else { &self.completed[call.status as usize] }
    }

    fn add_to(&self, stats: &mut crate::Stats) {
        for (sum, counter) in stats.completed.iter_mut().zip(&self.completed) {
            *sum += counter.load(Ordering::Relaxed);
        }
        stats.abandoned += self.abandoned.load(Ordering::Relaxed);
    }
}

/// Counts of one place, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// As the worker has said. Written by who reads the completions of the lane that is in use: a lane is read no more when the next one comes.
    told: Ended,
    /// As the host has decided. Those of a lane that is out of use may be settled while calls of the next one come back.
    settled: Ended,
    violations: AtomicU64,
    pokes: AtomicU64,
    moves: AtomicU64,
    retries: AtomicU64,
    last_violation: Mutex<Option<Violation>>,
}

impl Counters {
    /// Reader of the completions: a call came back. Only one thread at a time counts these, so this is no read-modify-write.
    #[inline]
    pub(crate) fn told(&self, call: &Completed) {
        let counter = self.told.counter(call);
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// As [`told`](Self::told): the owner of a call that was counted gave it up at that moment.
    #[cold]
    pub(crate) fn given_up(&self, call: &Completed) {
        let wanted = self.told.counter(&Completed { abandoned: false, ..*call });
        wanted.store(wanted.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        self.told(call);
    }

    /// A call came back without its worker.
    #[cold]
    pub(crate) fn settled(&self, call: &Completed) {
        self.settled.counter(call).fetch_add(1, Ordering::Relaxed);
    }

    /// A call has gone to another worker; `retry`: it may have run.
    pub(crate) fn moved(&self, retry: bool) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        self.retries.fetch_add(u64::from(retry), Ordering::Relaxed);
    }

    /// Any thread counts these.
    pub(crate) fn poked(&self) {
        self.pokes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn violation(&self, violation: Violation) {
        self.violations.fetch_add(1, Ordering::Relaxed);
        *self.last_violation.lock().unwrap_or_else(PoisonError::into_inner) = Some(violation);
    }

    pub(crate) fn add_to(&self, stats: &mut crate::Stats) {
        self.told.add_to(stats);
        self.settled.add_to(stats);
        stats.violations += self.violations.load(Ordering::Relaxed);
        stats.pokes += self.pokes.load(Ordering::Relaxed);
        stats.moves += self.moves.load(Ordering::Relaxed);
        stats.retries += self.retries.load(Ordering::Relaxed);
        let last = *self.last_violation.lock().unwrap_or_else(PoisonError::into_inner);
        stats.last_violation = stats.last_violation.or(last);
    }
}

/// What a worker's place is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerState {
    /// Its process is being set up.
    Starting,
    /// It takes calls.
    Serving,
    /// It has died too often; its replacement waits for the next attempt.
    BackingOff,
    /// The node is shutting down.
    Stopped,
}

/// A look at one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its number, from 0.
    pub index: u32,
    /// Process id, while there is a process.
    pub pid: Option<u32>,
    /// The core that it is pinned to.
    pub cpu: Option<u32>,
    /// How many processes this place has had, from 1.
    pub generation: u32,
    /// How many of them have ended, whatever for, and were replaced.
    pub restarts: u32,
    /// What it is doing.
    pub state: WorkerState,
    /// Calls that it has not completed.
    pub outstanding: u32,
}

/// Seats whose lanes a thread remembers.
const KNOWN_LANES: usize = 16;

/// Numbers seats.
static SEATS: AtomicU64 = AtomicU64::new(1);

/// A seat's lane as a thread has last seen it. It does not keep the lane alive.
struct Known {
    seat: u64,
    version: u64,
    lane: Weak<Lane>,
}

thread_local! {
    static KNOWN: RefCell<[Known; KNOWN_LANES]> =
        const { RefCell::new([const { Known { seat: 0, version: 0, lane: Weak::new() } }; KNOWN_LANES]) };
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) load: Arc<CachePadded<Load>>,
    /// Unlike any other seat's of the process.
    id: u64,
    lane: ArcSwapOption<Lane>,
    /// Moves after the lane was changed.
    version: AtomicU64,
    pub(crate) counters: Arc<Counters>,
    /// What its workers have counted.
    pub(crate) tally: Tally,
    info: Mutex<WorkerInfo>,
    sandbox: Mutex<SandboxReport>,
}

impl Seat {
    pub(crate) fn new(index: u32, cpu: Option<u32>) -> Self {
        let state = WorkerState::Starting;
        let info = WorkerInfo { index, pid: None, cpu, generation: 0, restarts: 0, state, outstanding: 0 };
        Self {
            load: Arc::default(),
            id: SEATS.fetch_add(1, Ordering::Relaxed),
            lane: ArcSwapOption::empty(),
            version: AtomicU64::new(0),
            counters: Arc::default(),
            tally: Tally::default(),
            info: Mutex::new(info),
            sandbox: Mutex::default(),
        }
    }

    pub(crate) fn info(&self) -> WorkerInfo {
        let info = *self.info.lock().unwrap_or_else(PoisonError::into_inner);
        WorkerInfo { outstanding: self.load.outstanding(), ..info }
    }

    /// What the latest worker that came up is sealed in by.
    pub(crate) fn sandbox(&self) -> SandboxReport {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn sealed(&self, sandbox: SandboxReport) {
        *self.sandbox.lock().unwrap_or_else(PoisonError::into_inner) = sandbox;
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut WorkerInfo)) {
        change(&mut self.info.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Calls may be submitted to this lane from now on.
    pub(crate) fn open(&self, lane: Arc<Lane>) {
        let hub = Arc::clone(&lane.hub);
        self.lane.store(Some(lane));
        self.version.fetch_add(1, Ordering::Release);
        self.load.leaving.store(false, Ordering::Relaxed);
        self.load.open.store(true, Ordering::Release);
        // An event loop that sleeps has not announced that on this lane, whose worker would not wake it. Pairs with the fence in `Hub::arm`.
        fence(Ordering::SeqCst);
        hub.settled();
    }

    /// No new calls; returns the lane, whose calls the caller settles.
    pub(crate) fn close(&self) -> Option<Arc<Lane>> {
        self.load.close();
        let lane = self.lane.swap(None);
        self.version.fetch_add(1, Ordering::Release);
        lane
    }

    /// As [`close`](Self::close), of this lane, when all that its worker has answered is counted: until then whoever asks for the counts finds it, and waits.
    pub(crate) fn close_counted(&self, lane: &Lane) {
        let mut reader = lane.lock();
        lane.drain_with(&mut reader, None);
        self.close();
    }

    /// The lane, while there is one.
    ///
    /// # Cost
    /// One atomic addition where this thread has asked before and nothing has changed since.
    #[inline]
    pub(crate) fn lane(&self) -> Option<Arc<Lane>> {
        let version = self.version.load(Ordering::Acquire);
        #[expect(clippy::cast_possible_truncation, reason = "any place will do")]
        let place = self.id as usize % KNOWN_LANES;
        let known = KNOWN.try_with(|known| {
            let known = known.borrow();
            let Known { seat, version: then, lane } = &known[place];
            if (*seat, *then) == (self.id, version) { lane.upgrade() } else { None }
        });
        known.ok().flatten().or_else(|| self.look_up(version, place))
    }

    #[cold]
    fn look_up(&self, version: u64, place: usize) -> Option<Arc<Lane>> {
        let lane = self.lane.load_full()?;
        let known = Known { seat: self.id, version, lane: Arc::downgrade(&lane) };
        // A thread that is ending remembers nothing.
        let _ = KNOWN.try_with(|all| all.borrow_mut()[place] = known);
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use microfaas_lane::host::Ticket;

    /// As when calls of a lost worker are settled while its replacement answers.
    #[test]
    fn no_count_is_lost_between_two_lanes_of_a_place() {
        const CALLS: u64 = if cfg!(miri) { 100 } else { 1_000_000 };
        let counters = Counters::default();
        let ticket = Ticket { slot: 0, generation: 1 };
        let call = |abandoned| Completed { ticket, status: Status::Timeout, abandoned, is_unsafe: false };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..CALLS).for_each(|n| counters.told(&call(n % 2 == 0))));
            scope.spawn(|| (0..CALLS).for_each(|n| counters.settled(&call(n % 2 == 0))));
        });
        let mut stats = crate::Stats::default();
        counters.add_to(&mut stats);
        assert_eq!((stats.abandoned, stats.completed(Status::Timeout)), (CALLS, CALLS));
    }
    #[test]
    fn a_call_that_is_given_up_as_it_comes_back_is_counted_once() {
        let counters = Counters::default();
        let ticket = Ticket { slot: 0, generation: 1 };
        let call = |abandoned| Completed { ticket, status: Status::Ok, abandoned, is_unsafe: false };
        counters.told(&call(false));
        counters.told(&call(false));
        counters.given_up(&call(true));
        let mut stats = crate::Stats::default();
        counters.add_to(&mut stats);
        assert_eq!((stats.abandoned, stats.completed(Status::Ok)), (1, 1));
    }
}
