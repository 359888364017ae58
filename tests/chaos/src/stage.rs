//! A node that an experiment works on, with the oracle's books open: it starts, warms up, is measured; and at the end everything must be as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use microfaas_node::{FunctionConfig, Node, NodeBuilder, Request, Stats, Status, WorkerInfo, WorkerState};
use tempfile::TempDir;

use crate::footprint::Footprint;
use crate::ledger::Ledger;
use crate::load::{Load, Running};
use crate::modules::put;
use crate::trial::{Stop, Trial};
use crate::victim::until;

/// For workers that were ended to serve again, longest pauses included. A watchdog, not a promise.
pub const HEAL: Duration = Duration::from_secs(60);
/// For what was held to be given back (invariant I5), from when all workers serve.
pub const SETTLE: Duration = Duration::from_secs(5);
/// The file that the functions come from.
pub const MODULE: &str = "chaos.so";
/// A file with another module, that experiments deploy and remove.
pub const OTHER: &str = "other.so";
const WARM_CALLS: usize = 200;
/// Rows of the ledger: as many requests can be made in one experiment.
const REQUESTS: usize = 1 << 20;
/// How often generations are looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Settings of a node with the module that answers, in this folder.
pub fn builder(modules: &Path) -> NodeBuilder {
    let again = FunctionConfig::default().idempotent(true);
    Node::builder().modules(modules).workers(2).pin(false).function("answer_again", again)
}

/// See the module.
#[derive(Debug)]
pub struct Stage {
    /// In this process.
    pub node: Node,
    /// Of all loads on it.
    pub ledger: Arc<Ledger>,
    /// Before the experiment.
    pub before: Footprint,
    folder: TempDir,
    stats: Stats,
    slots: usize,
    watcher: Option<Watcher>,
}

impl Stage {
    /// Starts a node with two workers.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(trial: &mut Trial) -> Result<Self, Stop> {
        Self::start_with(trial, |builder| builder)
    }

    /// As [`start`](Self::start), with other settings.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        trial: &mut Trial,
        settings: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> Result<Self, Stop> {
        let folder = tempfile::tempdir()?;
        put(folder.path(), MODULE, &trial.modules.version(1))?;
        let node = settings(builder(folder.path())).start()?;
        // So that there is one to go back to, which the node keeps.
        node.deploy(put(folder.path(), MODULE, &trial.modules.version(0))?)?;
        // And one that was removed, which it keeps too. Twice: it keeps what that was before.
        for number in [1, 2] {
            node.deploy(put(folder.path(), OTHER, &trial.modules.numbered(number))?)?;
            node.remove(OTHER)?;
        }
        // Of its own, as it is to hold calls that do not count.
        let warm = Arc::new(Ledger::new(WARM_CALLS * 8));
        let load = Load { pause: Duration::ZERO, spin_us: 0..20, ..Load::default() };
        let problems = run_dry(&load, &node, &warm, trial);
        trial.verdict.problems.extend(problems);
        let ledger = Arc::new(Ledger::new(REQUESTS));
        let slots = free_slots(&node);
        until(SETTLE, || node.poll() == 0 && node.stats().outstanding == 0);
        if !until(HEAL, || has_spares(&node)) {
            return Err(Stop::Failed(format!("no spare within {HEAL:?}: {:?}", node.spares())));
        }
        let stats = node.stats();
        let watcher = Some(Watcher::start(&node));
        // What tried the deployments out is on its way.
        until(SETTLE, || {
            let processes = node.workers().len() + node.spares().ready.len();
            Footprint::now().processes == processes as u64
        });
        let before = Footprint::now();
        Ok(Self { node, ledger, before, folder, stats, slots, watcher })
    }

    /// Where its modules lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a load on the node.
    #[must_use]
    pub fn load(&self, load: &Load, trial: &mut Trial) -> Running {
        load.start(&self.node, &self.ledger, &mut trial.random)
    }

    /// Replaces the module's file by this version of it; nothing is deployed.
    ///
    /// # Errors
    /// As [`put`].
    pub fn put_version(&self, version: u32, trial: &Trial) -> std::io::Result<PathBuf> {
        put(self.folder(), MODULE, &trial.modules.version(version))
    }

    /// Waits until all workers serve and the spare is there; notes it where they do not.
    pub fn heal(&self, trial: &mut Trial) {
        let start = Instant::now();
        let healed = until(HEAL, || serves(&self.node) && has_spares(&self.node));
        trial.expect(healed, || {
            let (workers, spares) = (self.node.workers(), self.node.spares());
            format!("not all workers serve {HEAL:?} after the experiment: {workers:?}, {spares:?}")
        });
        trial.figure("heal_ms", start.elapsed().as_secs_f64() * 1000.0);
    }

    /// Ends the experiment: waits for the loads' calls, for workers, for what was held, and checks the invariants. The node is stopped.
    pub fn finish(self, loads: Vec<Running>, trial: &mut Trial) {
        self.finish_with(loads, trial, true);
    }

    /// As [`finish`](Self::finish); without `counted`, the node's counters are not compared with the books, since others have called it, too.
    pub fn finish_with(mut self, loads: Vec<Running>, trial: &mut Trial, counted: bool) {
        for load in loads {
            trial.verdict.problems.extend(load.stop());
        }
        self.heal(trial);
        if let Some(watcher) = self.watcher.take() {
            trial.verdict.problems.extend(watcher.stop());
        }
        let answer = self.node.call("answer", Request::new(b"is anybody there?"));
        trial.expect(answer.status == Status::Error, || format!("a healed node answers {answer:?}"));
        let settled = until(SETTLE, || {
            self.node.poll();
            self.node.stats().outstanding == 0
        });
        trial.expect(settled, || {
            format!("{} calls are outstanding that nobody waits for", self.node.stats().outstanding)
        });
        let slots = free_slots(&self.node);
        trial.expect(slots == self.slots, || format!("{slots} slots are free, {} before", self.slots));
        self.check_footprint(trial);
        if counted {
            self.check_counters(trial);
        }
        self.check_restarts(trial);
        enter(&self.ledger, trial);
        let mut processes: Vec<u32> = self.node.workers().iter().filter_map(|worker| worker.pid).collect();
        processes.extend(self.node.spares().ready);
        self.node.shutdown(Duration::from_secs(1));
        let left: Vec<u32> =
            processes.into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
        trial.expect(left.is_empty(), || format!("processes {left:?} are left of a node that was stopped"));
    }

    /// I5.
    fn check_footprint(&self, trial: &mut Trial) {
        let start = Instant::now();
        let mut more = Vec::new();
        until(SETTLE, || {
            more = Footprint::now().beyond(&self.before);
            more.is_empty() || {
                std::thread::sleep(Duration::from_millis(20));
                false
            }
        });
        trial.figure("settle_ms", start.elapsed().as_secs_f64() * 1000.0);
        trial.verdict.problems.extend(more);
    }

    /// I4, as the node itself counts. One call is the stage's own.
    fn check_counters(&self, trial: &mut Trial) {
        let (counts, now) = (self.ledger.counts(), self.node.stats());
        let accepted = now.accepted() - self.stats.accepted();
        trial.expect(accepted == counts.accepted + 1, || {
            format!("the node counts {} accepted calls, their callers {}", accepted - 1, counts.accepted)
        });
        // An answer that comes just as its caller goes counts as an answer for the node.
        let ok = now.completed(Status::Ok) - self.stats.completed(Status::Ok);
        let gone = counts.hung_up
            + [Status::Timeout, Status::Expired]
                .map(|status| self.ledger.outcomes(status))
                .iter()
                .sum::<u64>();
        trial.expect((counts.ok..=counts.ok + gone).contains(&ok), || {
            format!("the node counts {ok} calls that ended OK, their callers {}", counts.ok)
        });
    }

    /// I8: each process of a place but the first is there because another has ended, and was counted.
    fn check_restarts(&self, trial: &mut Trial) {
        for WorkerInfo { index, generation, restarts, .. } in self.node.workers() {
            trial.expect(generation <= restarts + 1, || {
                format!("worker {index} is the {generation}. of its place, {restarts} restarts are counted")
            });
        }
    }
}

/// Enters what a ledger says into the trial's verdict.
pub fn enter(ledger: &Ledger, trial: &mut Trial) {
    let counts = ledger.counts();
    trial.verdict.counts.add(counts);
    for (count, what) in [
        (counts.lost, "without an outcome"),
        (counts.doubled, "ended or answered twice"),
        (counts.wrong, "answered wrongly"),
        (counts.late, "ended or refused too late"),
    ] {
        trial.expect(count == 0, || format!("{count} requests {what}"));
    }
    if !trial.verdict.problems.is_empty() {
        trial.verdict.problems.extend(ledger.words());
    }
}

/// Whether all workers serve.
#[must_use]
pub fn serves(node: &Node) -> bool {
    node.workers().iter().all(|worker| worker.state == WorkerState::Serving)
}

/// Whether all processes that are to wait for a worker to end are there.
#[must_use]
pub fn has_spares(node: &Node) -> bool {
    let spares = node.spares();
    spares.starting.is_empty() && spares.ready.len() == spares.wanted as usize
}

/// Puts a load on a node until the ledger is full.
fn run_dry(load: &Load, node: &Node, ledger: &Arc<Ledger>, trial: &mut Trial) -> Vec<String> {
    let running = load.start(node, ledger, &mut trial.random);
    until(HEAL, || ledger.is_full());
    running.stop()
}

/// How many slots for small requests can be had, of all workers.
fn free_slots(node: &Node) -> usize {
    let mut prepared = Vec::new();
    while let Ok(slot) = node.prepare("answer", 64, 0) {
        prepared.push(slot);
    }
    prepared.len()
}

/// Looks at the workers all the time: generations only grow, and a place's process changes only with its generation (I7).
#[derive(Debug)]
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Watcher {
    fn start(node: &Node) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (node, end) = (node.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            let mut last = node.workers();
            while !end.load(Ordering::Relaxed) && found.len() < 10 {
                std::thread::sleep(LOOK);
                let now = node.workers();
                found.extend(last.iter().zip(&now).filter_map(|(last, now)| compare(last, now)));
                last = now;
            }
            found
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| vec!["the watcher of generations panicked".to_owned()])
    }
}

fn compare(last: &WorkerInfo, now: &WorkerInfo) -> Option<String> {
    let is_same = last.pid == now.pid || now.pid.is_none() || last.pid.is_none();
    let grows = now.generation >= last.generation && now.restarts >= last.restarts;
    (!grows || !is_same && now.generation == last.generation).then(|| format!("{last:?} became {now:?}"))
}
