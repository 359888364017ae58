//! Runs cases on a node that serves another function at the same time, and finds out what became of everybody.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use microfaas_node::{
    Completion, FunctionConfig, Layer, Limits, Node, NodeBuilder, Policy, Request, Status, WorkerState,
};

use super::watch::{Footprint, adopt_orphans, children};
use super::{Case, Equals};

/// What the functions under attack may use.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory of modules.
    pub modules: PathBuf,
    /// CPU time of a call.
    pub budget: Duration,
    /// CPU time before somebody else's turn.
    pub quantum: Duration,
    /// How long a caller waits.
    pub deadline: Duration,
    /// How long after that a worker that is still busy is replaced.
    pub stall: Duration,
    /// The worker's program; `None` looks for it.
    pub worker: Option<PathBuf>,
}

impl Settings {
    /// What the suite is run with: limits so short that a case of hundreds of calls takes seconds, so long that honest ones never meet them.
    #[must_use]
    pub fn new(modules: PathBuf) -> Self {
        Self {
            modules,
            budget: Duration::from_millis(800),
            quantum: Duration::from_millis(1),
            deadline: Duration::from_secs(10),
            stall: Duration::from_millis(500),
            worker: None,
        }
    }
}

/// How long a replacement may take to come up before that is a failure; more than an honest one ever needs.
const REPLACEMENT: Duration = Duration::from_secs(60);

/// How long the kernel may take to end what is left of a worker that was replaced.
const SETTLE: Duration = Duration::from_secs(20);

/// How much more memory of its own a worker may have after a case: a call's arena keeps 4 MiB of what it has used, and there are two.
const RESIDENT_DELTA_MAX: u64 = 8 << 20;

/// A node, the function that must not notice anything, and the bookkeeping.
#[derive(Debug)]
pub struct Arena {
    settings: Settings,
    names: Vec<String>,
    node: Node,
}

/// What became of a case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Statuses of its calls, in order.
    pub statuses: Vec<Status>,
    /// Text about the first call.
    pub detail: String,
    /// Whether the worker's process is the same as before.
    pub same_worker: bool,
    /// Longest time from submitting one of the calls to its answer.
    pub longest: Duration,
    /// What was not as required; empty is good.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// How the calls ended: names of statuses, without repetitions in a row.
    #[must_use]
    pub fn got(&self) -> String {
        let mut names: Vec<&str> = self.statuses.iter().map(|status| status.name()).collect();
        names.dedup();
        names.join(",")
    }
}

impl Arena {
    /// Starts a node for these cases.
    ///
    /// # Panics
    /// Where it does not come up.
    #[must_use]
    pub fn new(settings: Settings, cases: &[Case]) -> Self {
        adopt_orphans();
        let names: Vec<String> = cases.iter().map(|case| case.name.clone()).collect();
        let node = start(&settings, &names);
        Self { settings, names, node }
    }

    /// Whether the workers' system call filter is in force.
    #[must_use]
    pub fn is_sandboxed(&self) -> bool {
        self.node.sandbox(0).is_some_and(|report| report.is_active(Layer::SystemCalls))
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Runs one case. A node whose worker had to be replaced is replaced itself afterwards, so that no case waits for another's restarts.
    pub fn run(&mut self, case: &Case) -> Outcome {
        let before = Look::at(&self.node);
        let stop = AtomicBool::new(false);
        let served = AtomicU64::new(0);
        let (mut outcome, neighbour) = std::thread::scope(|scope| {
            let neighbour = scope.spawn(|| serve_others(&self.node, &stop, &served));
            // The neighbour is served before the attack begins.
            wait_for(|| served.load(Ordering::Acquire) > 0);
            let outcome = attack(&self.node, case, &before);
            let so_far = served.load(Ordering::Acquire);
            wait_for(|| served.load(Ordering::Acquire) > so_far);
            stop.store(true, Ordering::Release);
            (outcome, neighbour.join().expect("the neighbour does not panic"))
        });
        self.judge(case, &before, neighbour, &mut outcome);
        if !outcome.same_worker {
            self.node.shutdown(Duration::ZERO);
            self.node = start(&self.settings, &self.names);
        }
        outcome
    }

    /// How it is afterwards. A worker that was replaced is taken apart while its successor serves already: what is held of it goes within a while.
    fn settled(&self, case: &Case, before: &Look) -> Look {
        let end = Instant::now() + SETTLE;
        loop {
            let after = Look::at(&self.node);
            let most =
                case.fd_delta.unwrap_or(usize::MAX).saturating_add(before.host.descriptors.unwrap_or(0));
            let mut known = before.processes.clone();
            known.extend(after.pid);
            let has_settled = after.host.descriptors <= Some(most) && children(&known).is_empty();
            if has_settled || Instant::now() >= end {
                return after;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What only shows when everything is over.
    fn judge(&self, case: &Case, before: &Look, neighbour: Neighbour, outcome: &mut Outcome) {
        let after = self.settled(case, before);
        let wrong = &mut outcome.wrong;
        let (same, restarted) = case.worker;
        match outcome.same_worker {
            true if !same => wrong.push("the worker is still the same".into()),
            false if !restarted => wrong.push("the worker had to be replaced".into()),
            _ => {}
        }
        if neighbour.wrong > 0 {
            wrong.push(format!("the neighbour got {} wrong answers", neighbour.wrong));
        }
        if neighbour.lost > 0 && outcome.same_worker {
            wrong.push(format!("the neighbour lost {} calls", neighbour.lost));
        }
        if let Some(most) = case.fd_delta {
            let mut compare = |whose: &str, before: Option<usize>, after: Option<usize>| {
                if let (Some(before), Some(after)) = (before, after)
                    && after > before + most
                {
                    wrong.push(format!("{whose} had {before} descriptors and has {after}"));
                }
            };
            compare("the host", before.host.descriptors, after.host.descriptors);
            compare("the worker", before.worker.descriptors, after.worker.descriptors);
        }
        if after.worker.threads != 1 {
            wrong.push(format!("the worker has {} threads", after.worker.threads));
        }
        if outcome.same_worker && after.worker.resident > before.worker.resident + RESIDENT_DELTA_MAX {
            let [before, after] = [before, &after].map(|look| look.worker.resident >> 10);
            wrong.push(format!("the worker had {before} KiB resident and has {after} KiB"));
        }
        let mut known = before.processes.clone();
        known.extend(after.pid);
        let orphans = children(&known);
        if !orphans.is_empty() {
            wrong.push(format!("processes {orphans:?} are left"));
        }
        let stats = self.node.stats();
        if stats.outstanding != 0 {
            wrong.push(format!("{} calls are still on their way", stats.outstanding));
        }
    }
}

fn start(settings: &Settings, names: &[String]) -> Node {
    let nanoseconds = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let limits = Limits {
        quantum_ns: nanoseconds(settings.quantum),
        budget_ns: nanoseconds(settings.budget),
        policy: Policy::Share,
        stateful: false,
    };
    let config = FunctionConfig::default().deadline(settings.deadline).limits(limits);
    let builder: NodeBuilder =
        Node::builder().modules(&settings.modules).workers(1).stall(settings.stall).arena_bytes(256 << 20);
    // What is held and left is counted: no other process is to come or go meanwhile.
    let builder = builder.spares(0);
    let builder = names.iter().fold(builder, |builder, name| builder.function(name, config.clone()));
    let builder = match &settings.worker {
        Some(program) => builder.worker_binary(program),
        None => builder,
    };
    builder.start().unwrap_or_else(|error| panic!("the node does not come up: {error}"))
}

/// Everything that could leak.
#[derive(Debug)]
struct Look {
    pid: Option<u32>,
    generation: u32,
    host: Footprint,
    worker: Footprint,
    processes: Vec<u32>,
}

impl Look {
    fn at(node: &Node) -> Self {
        let worker = node.workers()[0];
        Self {
            pid: worker.pid,
            generation: worker.generation,
            host: Footprint::of(std::process::id()),
            worker: worker.pid.map(Footprint::of).unwrap_or_default(),
            processes: children(&[]),
        }
    }
}

fn attack(node: &Node, case: &Case, before: &Look) -> Outcome {
    let mut outcome = Outcome {
        statuses: Vec::new(),
        detail: String::new(),
        same_worker: true,
        longest: Duration::ZERO,
        wrong: Vec::new(),
    };
    for (i, input) in case.calls.iter().enumerate() {
        let start = Instant::now();
        let completion = call_when_up(node, &case.name, input);
        outcome.longest = outcome.longest.max(start.elapsed());
        check_answer(case, i, input, &completion, &mut outcome.wrong);
        outcome.statuses.push(completion.status);
        if i == 0 {
            outcome.detail = completion.detail.into_owned();
        }
        if case.next_ok {
            let next = call_when_up(node, "echo", b"next");
            if (next.status, next.body.as_slice()) != (Status::Ok, b"next") {
                outcome.wrong.push(format!("the next call ended {}: {}", next.status.name(), next.detail));
            }
        }
    }
    if let Some(most) = case.rss_delta {
        let resident = || node.workers()[0].pid.map_or(0, |pid| Footprint::of(pid).resident);
        let first = resident();
        for _ in 0..1000 {
            let status = call_when_up(node, &case.name, &case.calls[0]).status;
            if !case.statuses.iter().any(|allowed| allowed == status.name()) {
                outcome.wrong.push(format!("one of a thousand calls ended {}", status.name()));
                break;
            }
        }
        let last = resident();
        if last > first + most {
            outcome.wrong.push(format!(
                "{} KiB resident before a thousand calls, {} KiB after",
                first >> 10,
                last >> 10
            ));
        }
    }
    // A worker that is about to be replaced has been, once its place serves the next generation.
    wait_for(|| node.workers()[0].state == WorkerState::Serving);
    outcome.same_worker = node.workers()[0].generation == before.generation;
    outcome
}

fn check_answer(case: &Case, i: usize, input: &[u8], completion: &Completion, wrong: &mut Vec<String>) {
    let status = completion.status.name();
    if !case.statuses.iter().any(|allowed| allowed == status) {
        wrong.push(format!("call {} ended {status}: {}", i + 1, completion.detail));
    }
    let body = &completion.body;
    let contains = |what: &[u8]| {
        [body, completion.detail.as_bytes()]
            .iter()
            .any(|text| text.windows(what.len()).any(|part| part == what))
    };
    let forbidden = case.call_not_contains.iter().filter(|(call, _)| *call == i).map(|(_, what)| what);
    for what in forbidden.chain(&case.not_contains) {
        if contains(what) {
            wrong.push(format!("the answer to call {} contains {:?}", i + 1, String::from_utf8_lossy(what)));
        }
    }
    if case.call_zero.contains(&i) && body.iter().any(|byte| *byte != 0) {
        wrong.push(format!("the answer to call {} is not zero", i + 1));
    }
    let expected = match (&case.equals, i) {
        (Some(Equals::Input), _) => Some(input),
        (Some(Equals::Text(text)), 0) => Some(text.as_slice()),
        _ => None,
    };
    if expected.is_some_and(|expected| expected != body.as_slice()) {
        wrong.push(format!("the answer to call {} is {:?}", i + 1, String::from_utf8_lossy(body)));
    }
    if case.detail.as_ref().is_some_and(|detail| !completion.detail.contains(detail)) {
        wrong.push(format!("the text about call {} is {:?}", i + 1, completion.detail));
    }
    if case.error_text_max.is_some_and(|max| completion.detail.len() > max) {
        wrong.push(format!("a text of {} bytes", completion.detail.len()));
    }
}

/// Calls; again where there was no worker to call, or one that was about to be replaced and never began with it.
fn call_when_up(node: &Node, function: &str, body: &[u8]) -> Completion {
    let start = Instant::now();
    loop {
        let completion = node.call(function, Request::new(body));
        let not_up =
            completion.never_started && matches!(completion.status, Status::WorkerLost | Status::Overloaded);
        if !not_up || start.elapsed() > REPLACEMENT {
            return completion;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_for(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() && start.elapsed() < REPLACEMENT {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Neighbour {
    wrong: u64,
    lost: u64,
}

/// Calls another function all the while, with another body each time, and checks what comes back.
fn serve_others(node: &Node, stop: &AtomicBool, served: &AtomicU64) -> Neighbour {
    let mut result = Neighbour::default();
    let mut n = 0u64;
    while !stop.load(Ordering::Acquire) {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let body = n.to_le_bytes().repeat(1 + usize::try_from(n >> 60).unwrap_or(0));
        let request = Request::new(&body).deadline(REPLACEMENT);
        let completion = node.call("checksum", request);
        match completion.status {
            Status::Ok if completion.body == [&fnv1a(&body).to_le_bytes(), body.as_slice()].concat() => {}
            Status::WorkerLost | Status::Overloaded => result.lost += 1,
            _ => result.wrong += 1,
        }
        served.fetch_add(1, Ordering::Release);
        std::thread::sleep(Duration::from_micros(200));
    }
    result
}

/// FNV-1a, 64 bits, as the probe's `checksum` has it.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
