//! A node that an experiment works on, with the oracle's books open: it starts, warms up, is measured; and at the end everything must be as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use microfaas_node::{
    Completion, FunctionConfig, Node, NodeBuilder, Request, RestartCause, Status, WorkerInfo, WorkerState,
};
use tempfile::TempDir;

use crate::books::{self, Aside, Known, Said};
use crate::footprint::{Footprint, descendants};
use crate::ledger::Ledger;
use crate::load::{Load, Running};
use crate::log;
use crate::modules::put;
use crate::trial::{Stop, Trial};
use crate::victim::until;

/// For workers that were ended to serve again, longest pauses included. A watchdog, not a promise.
pub const HEAL: Duration = Duration::from_secs(60);
/// For what was held to be given back (invariant I5), from when all workers serve. A watchdog too: how long it took is a figure.
pub const SETTLE: Duration = Duration::from_secs(30);
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
    /// Calls beside those of the loads; see [`call`](Self::call).
    pub aside: Aside,
    /// Of loads whose books are kept apart.
    pub others: Vec<Arc<Ledger>>,
    causes: &'static [RestartCause],
    /// Whether other hosts call it, too.
    pub guests: bool,
    /// Of the calls before any experiment began. They are in the node's counts too, which are looked at from the node's start on: a worker that has answered a call
    /// counts it a moment later, so no moment while it lives is one to begin at.
    warm: Arc<Ledger>,
    before: Footprint,
    folder: TempDir,
    slots: usize,
    watcher: Option<Watcher>,
}

impl Stage {
    /// Starts a node with two workers, of which none may be replaced; but see [`loses`](Self::loses).
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
        // Of its own, as its calls are not the experiment's.
        let warm = Arc::new(Ledger::new(WARM_CALLS * 8));
        let load = Load { pause: Duration::ZERO, spin_us: 0..20, ..Load::default() };
        let problems = run_dry(&load, &node, &warm, trial);
        trial.verdict.problems.extend(problems);
        let ledger = Arc::new(Ledger::new(REQUESTS));
        // A call that was moved has its first slot, too, until its first worker has answered.
        until(SETTLE, || node.poll() == 0 && node.stats().outstanding == 0);
        let slots = free_slots(&node);
        if !until(HEAL, || has_spares(&node)) {
            return Err(Stop::Failed(format!("no spare within {HEAL:?}: {:?}", node.spares())));
        }
        let watcher = Some(Watcher::start(&node));
        let before = footprint(&node);
        let (aside, others, causes, guests) = (Aside::default(), Vec::new(), [].as_slice(), false);
        // By `free_slots`.
        aside.refuse();
        Ok(Self { node, ledger, aside, others, causes, guests, warm, before, folder, slots, watcher })
    }

    /// With workers that may be replaced, for these causes.
    #[must_use]
    pub fn loses(self, causes: &'static [RestartCause]) -> Self {
        Self { causes, ..self }
    }

    /// Where its modules lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What is held now is what is to be held at the end.
    pub fn measure(&mut self) {
        self.before = footprint(&self.node);
    }

    /// Puts a load on the node.
    #[must_use]
    pub fn load(&self, load: &Load, trial: &mut Trial) -> Running {
        load.start(&self.node, &self.ledger, &mut trial.random)
    }

    /// Calls a function beside the loads, and notes what came of it.
    pub fn call(&self, function: &str, request: Request<'_>) -> Completion {
        let answer = self.node.call(function, request);
        self.aside.enter(&answer);
        answer
    }

    /// As [`call`](Self::call), of one that starts before its deadline. On a busy machine that may be over before, which says nothing of what is asked: then another one is made.
    pub fn call_started(&self, function: &str, request: Request<'_>) -> Completion {
        let mut answer = Completion::default();
        until(HEAL, || {
            answer = self.call(function, request);
            answer.status != Status::Expired
        });
        answer
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

    /// Waits so long at most until no call has a slot, also of those that nobody waits for. Whether that is so.
    #[must_use]
    pub fn is_idle(&self, within: Duration) -> bool {
        until(within, || {
            self.node.poll();
            self.node.stats().outstanding == 0
        })
    }

    /// Ends the experiment: waits for the loads' calls, for workers, for what was held, and checks the invariants. The node is stopped.
    pub fn finish(mut self, loads: Vec<Running>, trial: &mut Trial) {
        for load in loads {
            trial.verdict.problems.extend(load.stop());
        }
        self.heal(trial);
        if let Some(watcher) = self.watcher.take() {
            trial.verdict.problems.extend(watcher.stop());
        }
        trial.expect(self.is_idle(SETTLE), || {
            format!("{} calls are outstanding that nobody waits for", self.node.stats().outstanding)
        });
        // Not before: calls that nobody waits for may have all slots until they are due.
        let answer = self.call("answer", Request::new(b"is anybody there?"));
        trial.expect(answer.status == Status::Error, || format!("a healed node answers {answer:?}"));
        let slots = free_slots(&self.node);
        // Until it was refused one.
        self.aside.refuse();
        trial.expect(slots == self.slots, || format!("{slots} slots are free, {} before", self.slots));
        self.check_footprint(trial);
        self.check_counters(trial);
        let (causes, problems) = books::restarts(&self.node, self.causes);
        trial.verdict.problems.extend(problems);
        for (cause, times) in causes {
            *trial.verdict.restarts.entry(cause).or_default() += times;
        }
        // Else what is said of its length says nothing.
        trial.expect(log::bytes() > 0, || "nothing is logged".to_owned());
        for ledger in self.others.iter().chain([&self.ledger]) {
            enter(ledger, trial);
        }
        let mut processes: Vec<u32> = self.node.workers().iter().filter_map(|worker| worker.pid).collect();
        processes.extend(self.node.spares().ready);
        self.node.shutdown(Duration::from_secs(1));
        // Others may have their numbers by now.
        let ours = descendants(std::process::id());
        let left: Vec<_> = ours.into_iter().filter(|(pid, _)| processes.contains(pid)).collect();
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

    /// I4, as the node itself counts: all that it has ever counted. A worker counts a call when it has answered it, so that may be a moment later.
    fn check_counters(&self, trial: &mut Trial) {
        let mut known = Known::default();
        self.others.iter().chain([&self.ledger, &self.warm]).for_each(|ledger| known.add(ledger));
        known.add_aside(&self.aside);
        let mut differs = Vec::new();
        until(SETTLE, || {
            differs = Said::by(&self.node).differs(&known, self.guests);
            differs.is_empty()
        });
        trial.verdict.problems.extend(differs);
    }

    /// How often workers were replaced for this so far.
    #[must_use]
    pub fn replaced_for(&self, cause: RestartCause) -> u64 {
        books::restarts(&self.node, &RestartCause::ALL).0.get(cause.name()).copied().unwrap_or(0)
    }
}

/// What there is beside a node, when the processes in which deployments were tried out have gone.
fn footprint(node: &Node) -> Footprint {
    let processes = node.workers().len() as u64 + u64::from(node.spares().wanted);
    until(HEAL, || {
        let now = Footprint::now();
        (now.processes, now.zombies) == (processes, 0)
    });
    Footprint::now()
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
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Watcher {
    fn start(node: &Node) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (node, end) = (node.clone(), Arc::clone(&stop));
        let look = move || {
            let mut found = Vec::new();
            let mut last = node.workers();
            while !end.load(Ordering::Relaxed) && found.len() < 10 {
                std::thread::sleep(LOOK);
                let now = node.workers();
                found.extend(last.iter().zip(&now).filter_map(|(last, now)| compare(last, now)));
                last = now;
            }
            found
        };
        Self { stop, thread: Some(std::thread::spawn(look)) }
    }

    fn stop(mut self) -> Vec<String> {
        self.end()
    }

    fn end(&mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let found = self.thread.take().map(JoinHandle::join);
        found.map_or_else(Vec::new, |found| {
            found.unwrap_or_else(|_| vec!["the watcher of generations panicked".to_owned()])
        })
    }
}

impl Drop for Watcher {
    /// It keeps the node.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn compare(last: &WorkerInfo, now: &WorkerInfo) -> Option<String> {
    let is_same = last.pid == now.pid || now.pid.is_none() || last.pid.is_none();
    let grows = now.generation >= last.generation && now.restarts >= last.restarts;
    (!grows || !is_same && now.generation == last.generation).then(|| format!("{last:?} became {now:?}"))
}
