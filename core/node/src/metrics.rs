//! What calls have used, by function and worker: read from where the workers count it, and added up over the workers that a place has had.
//!
//! Each worker counts what it ran in a region of its own (`microfaas_metrics`), whichever host the calls came from. When it has ended, the supervisor adds its
//! numbers to those of its place, once, and the next one gets a new region. What a host has decided without a worker (refused, taken back,
//! lost) it counts itself, one that is attached where its node reads it (`attach::ledger`). Every call that was accepted is in one of the two, once; one that its worker, or
//! its host, did not live to count is in neither.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use microfaas_lane::Status;
use microfaas_metrics::{FUNCTIONS, Recorder, Region, Usage};

use crate::attach::HostInfo;
use crate::node::Shared;
use crate::seat::Seat;
use crate::{SpareInfo, Stats, Stocked, WorkerInfo};

/// Statuses of calls.
const STATUSES: usize = Status::ALL.len();
/// Calls by status, in the order of [`Status::ALL`].
pub(crate) type Counts = [u64; STATUSES];
/// Functions whose counts are allocated together.
const CHUNK: usize = 64;

/// A look at what calls have used. Each number is exact, together they are not from one moment. What workers say is believed only of the functions that they run.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// Those that were called, also if they are not deployed any more; in the order of their names.
    pub functions: Vec<FunctionMetrics>,
    /// Calls of numbers that no function has, and of functions whose numbers are beyond what is counted apart, together; `None` where there are none.
    pub others: Option<FunctionMetrics>,
    /// In the order of their numbers.
    pub workers: Vec<WorkerMetrics>,
    /// Processes that wait to take a worker's place.
    pub spares: SpareInfo,
    /// Hosts that are attached.
    pub hosts: Vec<HostInfo>,
    /// Counts of the whole node.
    pub stats: Stats,
}

/// What the calls of one function have used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionMetrics {
    /// Its name.
    pub name: String,
    /// What was run, by worker, in the order of their numbers.
    pub workers: Vec<Usage>,
    /// What hosts have decided without a worker, by status in the order of [`Status::ALL`]: this one, and those that are or were attached to it.
    pub decided: [u64; STATUSES],
}

impl FunctionMetrics {
    /// All of it together.
    #[must_use]
    pub fn total(&self) -> Usage {
        let mut total = Usage { calls: self.decided, ..Usage::default() };
        for usage in &self.workers {
            total.add(usage);
        }
        total
    }
}

/// One worker's place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// What is in it now.
    pub info: WorkerInfo,
    /// Slots of the node's own lane to it: most calls that this host can have there at once; 0 while there is none.
    pub slots: u32,
    /// What it has loaded.
    pub stocked: Stocked,
    /// How many of its processes have ended and were replaced, by cause, in the order of [`RestartCause::ALL`].
    pub restarts: [u64; RestartCause::ALL.len()],
}

/// Why a worker was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RestartCause {
    /// Its process ended: killed, or by itself after a function broke memory safety.
    Died,
    /// A call was long overdue, and it did not let go of it.
    Hung,
    /// It broke a lane's protocol.
    Violation,
    /// It said what does not belong there, or could not be told anything.
    Protocol,
    /// It did not answer the node in time.
    Silent,
    /// It did not come up.
    Launch,
    /// Too much of what it had unloaded stayed in its memory.
    Stayed,
}

impl RestartCause {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Died, Self::Hung, Self::Violation, Self::Protocol, Self::Silent, Self::Launch, Self::Stayed];

    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Died => "died",
            Self::Hung => "hung",
            Self::Violation => "violation",
            Self::Protocol => "protocol",
            Self::Silent => "silent",
            Self::Launch => "launch",
            Self::Stayed => "stayed",
        }
    }
}

/// What one place's workers have counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    books: Mutex<Books>,
    restarts: [AtomicU64; RestartCause::ALL.len()],
    /// Why the worker that is there now is on its way out, if that is known; the number of the cause plus one.
    fate: AtomicU64,
}

#[derive(Debug, Default)]
struct Books {
    /// Of the worker that serves, or served last.
    live: Option<(Region, Instant)>,
    /// Of those that have just ended.
    ended: Vec<(Region, Instant)>,
    /// Of those before them, by function number.
    past: BTreeMap<u32, Usage>,
}

impl Tally {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker serves that counts in this region.
    pub(crate) fn begin(&self, region: Region) {
        self.books().live = Some((region, Instant::now()));
    }

    /// The worker is dead: its numbers do not change any more.
    pub(crate) fn end(&self) {
        let mut books = self.books();
        let live = books.live.take();
        books.ended.extend(live);
    }

    /// Adds what those have counted that are dead to what is past. `numbers` are below that.
    ///
    /// # Cost
    /// A page is read for each function that was called.
    pub(crate) fn fold(&self, numbers: usize) {
        let mut books = self.books();
        for dead in std::mem::take(&mut books.ended) {
            for number in counted(numbers) {
                if let Some(usage) = usage(&dead, number) {
                    books.past.entry(number).or_default().add(&usage);
                }
            }
        }
    }

    /// What calls of this function number have used.
    fn usage(&self, number: u32) -> Usage {
        let books = self.books();
        let mut sum = books.past.get(&number).cloned().unwrap_or_default();
        for usage in books.live.iter().chain(&books.ended).filter_map(|region| usage(region, number)) {
            sum.add(&usage);
        }
        sum
    }

    /// The worker is about to be ended for this. The first cause counts; whether this was it.
    pub(crate) fn doom(&self, cause: RestartCause) -> bool {
        self.fate.compare_exchange(0, cause as u64 + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The worker has ended, for what was known before or else for this.
    pub(crate) fn restarted(&self, otherwise: RestartCause) {
        let fate = self.fate.swap(0, Ordering::Relaxed);
        let index = fate.checked_sub(1).unwrap_or(otherwise as u64);
        if let Some(counter) = usize::try_from(index).ok().and_then(|index| self.restarts.get(index)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn restarts(&self) -> [u64; RestartCause::ALL.len()] {
        std::array::from_fn(|i| self.restarts[i].load(Ordering::Relaxed))
    }
}

/// What a worker says, as far as it can be: nobody has used more of a core than there was.
fn usage((region, since): &(Region, Instant), number: u32) -> Option<Usage> {
    let mut usage = region.usage(number)?;
    let lived_ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    usage.cpu_ns = usage.cpu_ns.min(lived_ns);
    usage.run.sum_ns = usage.run.sum_ns.min(lived_ns);
    Some(usage)
}

/// What stands for all numbers that are not counted apart.
const OTHERS: u32 = u32::MAX;

/// The numbers that are counted apart, of those below `numbers`, and the others.
pub(crate) fn counted(numbers: usize) -> impl Iterator<Item = u32> {
    (0..OTHERS).take(numbers.min(FUNCTIONS)).chain([OTHERS])
}

/// Adds up what may be any numbers.
pub(crate) fn add(to: &mut Counts, from: &Counts) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = to.saturating_add(*from);
    }
}

/// Counts of neighbouring function numbers, by status.
type Chunk = [[AtomicU64; STATUSES]; CHUNK];

/// What this host has decided without a worker, by function number and status.
#[derive(Debug)]
pub(crate) struct Decided {
    chunks: Box<[OnceLock<Box<Chunk>>]>,
    /// Where the node reads it that this host is attached to.
    ledger: ArcSwapOption<Recorder>,
}

impl Default for Decided {
    fn default() -> Self {
        let chunks = (0..=FUNCTIONS / CHUNK).map(|_| OnceLock::new()).collect();
        Self { chunks, ledger: ArcSwapOption::empty() }
    }
}

impl Decided {
    /// Counts a call.
    #[cold]
    pub(crate) fn count(&self, function: u32, status: Status) {
        let number = (function as usize).min(FUNCTIONS);
        let chunk = self.chunks[number / CHUNK]
            .get_or_init(|| Box::new(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)))));
        chunk[number % CHUNK][status as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(ledger) = &*self.ledger.load() {
            ledger.count(function, status);
        }
    }

    /// From now on it is counted there, too.
    pub(crate) fn tell(&self, ledger: Option<Recorder>) {
        self.ledger.store(ledger.map(Arc::new));
    }

    pub(crate) fn of(&self, number: u32) -> [u64; STATUSES] {
        let number = (number as usize).min(FUNCTIONS);
        match self.chunks[number / CHUNK].get() {
            Some(chunk) => std::array::from_fn(|i| chunk[number % CHUNK][i].load(Ordering::Relaxed)),
            None => [0; STATUSES],
        }
    }
}

impl Shared {
    /// See [`Node::metrics`](crate::Node::metrics).
    pub(crate) fn metrics(&self) -> Metrics {
        let catalog = self.catalog.load_full();
        let mut functions: BTreeMap<&str, FunctionMetrics> = BTreeMap::new();
        let mut others = None;
        for number in counted(catalog.owners.len()) {
            let mut decided = self.hub.decided.of(number);
            add(&mut decided, &self.ledgers.of(number));
            let workers = self.seats.iter().map(|seat| seat.tally.usage(number)).collect();
            let found = FunctionMetrics { name: String::new(), workers, decided };
            if found.total().calls_total() == 0 {
                continue;
            }
            match catalog.owners.get(number as usize) {
                Some(name) => {
                    let function = functions.entry(name).or_default();
                    function.name.clone_from(name);
                    function.add(&found);
                }
                None => others = Some(found),
            }
        }
        let functions = functions.into_values().collect();
        let workers = self.seats.iter().enumerate();
        let workers = workers.map(|(index, seat)| worker(seat, self.stock.of(index)));
        Metrics {
            functions,
            others,
            workers: workers.collect(),
            spares: self.spares.look(),
            hosts: self.ledgers.hosts(catalog.owners.len()),
            stats: self.stats(),
        }
    }
}

impl FunctionMetrics {
    /// Adds another number's calls.
    fn add(&mut self, other: &Self) {
        self.workers.resize_with(other.workers.len(), Usage::default);
        for (to, from) in self.workers.iter_mut().zip(&other.workers) {
            to.add(from);
        }
        add(&mut self.decided, &other.decided);
    }
}

fn worker(seat: &Seat, stocked: Stocked) -> WorkerMetrics {
    let slots = seat.lane().map_or(0, |lane| lane.host.geometry().slots());
    WorkerMetrics { info: seat.info(), slots, stocked, restarts: seat.tally.restarts() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use microfaas_metrics::{Record, Recorder, Times};
    use std::os::fd::AsFd;

    fn serve(tally: &Tally, calls: u64) {
        let (region, fd) = Region::create().unwrap();
        tally.begin(region);
        let recorder = Recorder::map(fd.as_fd()).unwrap();
        let times = Some(Times { queue_ns: 100, total_ns: 300 });
        let (request_bytes, response_bytes, cpu_ns) = (1, 2, 200);
        for _ in 0..calls {
            let (function, status) = (1, Status::Ok);
            recorder.record(&Record { function, status, request_bytes, response_bytes, cpu_ns, times });
        }
    }

    #[test]
    fn what_dead_workers_counted_is_kept_once() {
        let tally = Tally::default();
        for worker in 1..=3 {
            serve(&tally, 10);
            assert_eq!(tally.usage(1).calls_total(), 10 * worker);
            tally.end();
            tally.end();
            assert_eq!(tally.usage(1).calls_total(), 10 * worker, "between its end and when it is added");
            tally.fold(2);
            tally.fold(2);
            assert_eq!(tally.usage(1).calls_total(), 10 * worker);
        }
        let usage = tally.usage(1);
        assert_eq!((usage.request_bytes, usage.queue.count(), usage.run.count()), (30, 30, 30));
        assert_eq!(tally.usage(0), Usage::default());
    }

    #[test]
    fn nobody_used_more_than_there_was() {
        let (region, fd) = Region::create().unwrap();
        let live = (region, Instant::now());
        let times = Some(Times { queue_ns: 0, total_ns: 0 });
        let (function, status, cpu_ns) = (0, Status::Ok, u64::MAX);
        let record = Record { function, status, request_bytes: 0, response_bytes: 0, cpu_ns, times };
        Recorder::map(fd.as_fd()).unwrap().record(&record);
        assert!(usage(&live, 0).unwrap().cpu_ns < u64::MAX / 2);
    }

    /// As of hosts that write what they like.
    #[test]
    fn sums_of_what_others_say_do_not_wrap() {
        let mut function = FunctionMetrics { decided: [u64::MAX; STATUSES], ..FunctionMetrics::default() };
        let other = function.clone();
        function.add(&other);
        assert_eq!((function.decided, function.total().calls_total()), ([u64::MAX; STATUSES], u64::MAX));
    }

    #[test]
    fn the_first_cause_counts() {
        let tally = Tally::default();
        assert!(tally.doom(RestartCause::Hung));
        assert!(!tally.doom(RestartCause::Protocol));
        tally.restarted(RestartCause::Died);
        tally.restarted(RestartCause::Died);
        assert_eq!(tally.restarts(), [1, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_the_host_decides_has_its_function() {
        let decided = Decided::default();
        decided.count(70, Status::Overloaded);
        decided.count(u32::MAX, Status::WorkerLost);
        assert_eq!(decided.of(70)[Status::Overloaded as usize], 1);
        assert_eq!(decided.of(71), [0; STATUSES]);
        assert_eq!(decided.of(u32::MAX)[Status::WorkerLost as usize], 1);
    }
}
