//! A worker process that attacks its host while calls are on their way to it and to an honest one.
//!
//! Whatever it does: every accepted call gets one outcome, the honest worker's answers are all right, and when the node is gone nothing of it is left.
//! The names in brackets are those of the catalogue of hostile cases.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use microfaas_e2e::attacks::{adopt_orphans, children};
use microfaas_e2e::{Watchdog, hostile_node};
use microfaas_node::{CallError, Completion, Node, Request, RestartCause, Status, WorkerState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(120);
/// Longer than anything here takes on a busy machine: a call that needs its deadline to end was lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Descriptors are counted, so one test runs at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A node with worker 0, which attacks when it is told to, and worker 1, which is honest.
struct Arena {
    node: Option<Node>,
    fds: usize,
    pids: Vec<u32>,
    submitted: AtomicU64,
    _directory: tempfile::TempDir,
    _watchdog: Watchdog,
    _one: MutexGuard<'static, ()>,
}

fn fds() -> usize {
    fs::read_dir("/proc/self/fd").expect("/proc is there").count()
}

fn open_files() -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc is there");
    entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()
}

impl Arena {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(change: impl FnOnce(microfaas_node::NodeBuilder) -> microfaas_node::NodeBuilder) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        // What tokio opens once in a process and keeps is not to be counted as left.
        drop(tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
        let watchdog = Watchdog::new(LIMIT);
        let fds = fds();
        let (builder, directory) = hostile_node("echo");
        let node = change(builder.workers(2)).start().expect("both workers come up");
        let pids = node.workers().iter().filter_map(|worker| worker.pid).collect();
        let (node, submitted) = (Some(node), AtomicU64::new(0));
        Self { node, fds, pids, submitted, _directory: directory, _watchdog: watchdog, _one: one }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("there until `end`")
    }

    /// A lone call goes to worker 0.
    fn attack(&self, text: &str) -> String {
        self.submitted.fetch_add(1, Ordering::Relaxed);
        let completion = self.node().call("attack", Request::new(text.as_bytes()).deadline(PATIENCE));
        assert_eq!((completion.status, completion.worker), (Status::Ok, Some(0)), "{}", completion.detail);
        String::from_utf8(completion.body).expect("the worker answers in words")
    }

    /// As [`attack`](Self::attack), where the attack may hit its own answer already.
    fn unleash(&self, text: &str) {
        self.submitted.fetch_add(1, Ordering::Relaxed);
        let completion = self.node().call("attack", Request::new(text.as_bytes()).deadline(PATIENCE));
        assert_eq!(completion.worker, Some(0));
        assert_ne!(completion.status, Status::Timeout);
    }

    /// One call with a body of its own, which nobody else sends; `None` where it was not accepted.
    fn call(&self, body: &[u8], completion: &mut Completion) -> Option<()> {
        let request = Request::new(body).deadline(PATIENCE);
        match self.node().submit("echo", request) {
            Ok(call) => {
                self.submitted.fetch_add(1, Ordering::Relaxed);
                call.wait_into(completion);
                Some(())
            }
            Err(CallError::Overloaded { .. } | CallError::NoWorker) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Many threads call for a while. `trusted`: worker 0 does not write into responses, so what is right about its answers has to be.
    fn load(&self, time: Duration, trusted: bool) -> u64 {
        let answered = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let answered = &answered;
                scope.spawn(move || {
                    let mut completion = Completion::default();
                    let start = Instant::now();
                    let mut i = 0u64;
                    // One at least, however late it is by now.
                    while i == 0 || start.elapsed() < time {
                        i += 1;
                        let len = if i.is_multiple_of(50) { 6000 } else { 24 };
                        let mut body = [thread.to_le_bytes(), i.to_le_bytes(), (!i).to_le_bytes()].concat();
                        body.resize(len, body[8]);
                        if i.is_multiple_of(17) {
                            // Its caller hangs up.
                            if let Ok(call) = self.node().submit("echo", Request::new(&body)) {
                                self.submitted.fetch_add(1, Ordering::Relaxed);
                                drop(call);
                            }
                            continue;
                        }
                        if self.call(&body, &mut completion).is_none() {
                            std::thread::yield_now();
                            continue;
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                        match (completion.worker, completion.status) {
                            (Some(1), status) => {
                                assert_eq!((status, &completion.body), (Status::Ok, &body));
                            }
                            (_, Status::Ok) if trusted => assert_eq!(completion.body, body),
                            (_, Status::Timeout | Status::Expired) => {
                                panic!("a call was lost: {completion:?}")
                            }
                            _ => {}
                        }
                    }
                });
            }
        });
        answered.into_inner()
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&Node) -> bool) {
        let start = Instant::now();
        while !condition(self.node()) {
            assert!(start.elapsed() < PATIENCE, "{what} did not happen");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_until_replaced(&self) {
        self.wait_until("a replacement", |node| {
            let worker = node.workers()[0];
            worker.generation >= 2 && worker.state == WorkerState::Serving
        });
    }

    fn signal(&self, worker: usize, signal: Signal) {
        let pid = self.node().workers()[worker].pid.expect("it serves");
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("it lives");
    }

    /// Each accepted call is accounted for once, both workers serve, and nothing outlives the node.
    fn end(mut self) {
        self.wait_until("the end of all calls", |node| {
            node.poll();
            let serve = node.workers().iter().all(|worker| worker.state == WorkerState::Serving);
            serve && node.stats().outstanding == 0
        });
        let mut completion = Completion::default();
        let echo = || self.node().submit("echo", Request::new(b"x")).expect("all slots are free");
        // None is over before the other one is there.
        self.signal(0, Signal::SIGSTOP);
        let waiting = [echo(), echo()];
        self.signal(0, Signal::SIGCONT);
        self.submitted.fetch_add(2, Ordering::Relaxed);
        assert_eq!(waiting.each_ref().map(microfaas_node::Call::worker), [Some(0), Some(1)]);
        for call in waiting {
            call.wait_into(&mut completion);
            assert_eq!((completion.status, completion.body.as_slice()), (Status::Ok, b"x".as_slice()));
        }
        let stats = self.node().stats();
        assert_eq!(stats.accepted(), self.submitted.load(Ordering::Relaxed), "{stats:?}");
        assert_eq!(self.node().workers()[1].restarts, 0, "the honest worker was replaced");
        self.pids.extend(self.node().workers().iter().filter_map(|worker| worker.pid));
        self.node = None;
        for pid in &self.pids {
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left");
        }
        // What a thread that is just ending still holds is gone in a moment.
        let start = Instant::now();
        while fds() != self.fds && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(fds(), self.fds, "descriptors: {:?}", open_files());
    }
}

/// [A10, C01, C02, C04, C07, D11] Rings, call states and control words are garbage while calls are on their way.
#[test]
fn garbage_in_the_protocols_words() {
    let mut violations = 0;
    for seed in 1..=8 {
        let arena = Arena::new();
        arena.unleash(&format!("scribble {seed} 600"));
        assert!(arena.load(Duration::from_millis(500), true) > 0);
        violations += arena.node().stats().violations;
        arena.end();
    }
    assert!(violations > 0, "no garbage was noticed");
}

/// [A10] The same over everything that small calls use, with small and round numbers among the random ones.
#[test]
fn garbage_everywhere() {
    let mut violations = 0;
    for seed in 1..=8 {
        let arena = Arena::new();
        arena.unleash(&format!("scribble-all {seed} 600"));
        assert!(arena.load(Duration::from_millis(500), false) > 0);
        violations += arena.node().stats().violations;
        arena.end();
    }
    assert!(violations > 0, "no garbage was noticed");
}

/// [D08, F10] A child of the old worker writes into the old lane when a new one is in its place.
#[test]
fn an_old_mapping_is_of_no_use() {
    let arena = Arena::new();
    adopt_orphans();
    arena.unleash("leave-child 7 4000");
    // The child writes into the lane of the first worker until that one is gone.
    while arena.node().stats().violations == 0 {
        arena.load(Duration::from_millis(200), false);
    }
    arena.wait_until_replaced();
    let before = arena.node().stats();
    arena.load(Duration::from_millis(300), true);
    let after = arena.node().stats();
    assert_eq!((before.violations, before.restarts), (after.violations, after.restarts));
    // The child is nobody's now but this process's, and is not to outlive the test.
    let left = children(&[]);
    arena.end();
    while children(&[]).iter().any(|pid| left.contains(pid)) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// [E01, E05] Completions for which nobody is woken are found, by threads and by futures.
#[test]
fn answers_without_a_wake_are_found() {
    let arena = Arena::new();
    arena.attack("silent");
    arena.load(Duration::from_millis(300), true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for i in 0..10u32 {
            let body = i.to_le_bytes();
            // The node has nothing to do in between, and nobody but its insurance can find the answer of a call that waits for ever.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let deadline = if i.is_multiple_of(2) { PATIENCE } else { Duration::MAX };
            let call = arena.node().submit("echo", Request::new(&body).deadline(deadline)).unwrap();
            arena.submitted.fetch_add(1, Ordering::Relaxed);
            let completion = call.await;
            assert_eq!((completion.status, completion.body.as_slice()), (Status::Ok, body.as_slice()));
        }
    });
    drop(runtime);
    arena.end();
}

/// [E02, E04, E07, E08] Wakes without cause, stolen wakes, moved sleepers, a full counter.
#[test]
fn bells_in_bad_hands() {
    for attack in ["storm", "steal", "requeue", "fill"] {
        let arena = Arena::new();
        assert_eq!(arena.attack(attack), "begun");
        assert!(arena.load(Duration::from_millis(600), true) > 0, "{attack}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let completion = runtime.block_on(async {
            arena.submitted.fetch_add(1, Ordering::Relaxed);
            arena.node().submit("echo", Request::new(b"x").deadline(PATIENCE)).unwrap().await
        });
        assert_eq!(
            (completion.status, completion.body.as_slice()),
            (Status::Ok, b"x".as_slice()),
            "{attack}"
        );
        drop(runtime);
        arena.end();
    }
}

/// [F01, F07] The regions cannot be resized, and what the host writes cannot be written by the worker.
#[test]
fn seals_hold() {
    let arena = Arena::new();
    assert_eq!(arena.attack("borders"), "all shut");
    arena.load(Duration::from_millis(50), true);
    arena.end();
}

/// [F02] Holes in the shared region, which no seal forbids, are garbage like any other.
#[test]
fn holes_are_noticed() {
    let arena = Arena::new();
    arena.unleash("punch");
    arena.load(Duration::from_millis(200), false);
    arena.wait_until_replaced();
    assert_eq!(arena.node().stats().violations, 1);
    arena.end();
}

/// [G01, G04] Calls that are taken and never completed end at their deadline, and so does the worker.
#[test]
fn calls_that_are_swallowed_time_out() {
    let arena = Arena::new();
    arena.attack("swallow");
    let short = Request::new(b"x").deadline(Duration::from_secs(1));
    let calls: Vec<_> = (0..4).map(|_| arena.node().submit("echo", short).unwrap()).collect();
    arena.submitted.fetch_add(4, Ordering::Relaxed);
    for call in calls {
        let worker = call.worker();
        let completion = call.wait();
        if worker == Some(0) {
            assert_eq!((completion.status, completion.never_started), (Status::Timeout, false));
        }
    }
    arena.wait_until_replaced();
    arena.end();
}

/// [H01, H02, H04, H05, H07] The worker dies at each step of a call. What it had published counts.
#[test]
fn death_at_every_step() {
    for point in ["take", "start", "run", "half", "publish", "wake", "served"] {
        let arena = Arena::with(|builder| builder.heartbeat(PATIENCE));
        arena.attack(&format!("kill {point}"));
        // It has something to do until the other one has ended, so it gets nothing of that one's before.
        arena.signal(1, Signal::SIGSTOP);
        let bodies: Vec<_> = (0..6u32).map(|i| format!("body {i} of {point}")).collect();
        let request = |body: &'_ String| body.as_bytes().to_vec();
        let calls: Vec<_> = bodies
            .iter()
            .filter_map(|body| {
                let call =
                    arena.node().submit("echo", Request::new(&request(body)).deadline(PATIENCE)).ok()?;
                arena.submitted.fetch_add(1, Ordering::Relaxed);
                Some((body, call))
            })
            .collect();
        arena.wait_until_replaced();
        arena.signal(1, Signal::SIGCONT);
        let mut first = true;
        for (body, call) in calls {
            let worker = call.worker();
            let completion = call.wait();
            if worker == Some(1) {
                assert_eq!((completion.status, completion.body.as_slice()), (Status::Ok, body.as_bytes()));
                continue;
            }
            // What had not started is run elsewhere.
            let lost = first && matches!(point, "run" | "half" | "publish");
            assert_eq!(completion.status, if lost { Status::WorkerLost } else { Status::Ok }, "{point}");
            if lost {
                assert!(!completion.never_started, "{point}: {body}");
            } else {
                assert_eq!(completion.body, body.as_bytes(), "{point}");
            }
            first = false;
        }
        arena.end();
    }
}

/// [F08] Packets that nobody asked for, with descriptors, on the control socket.
#[test]
fn a_worker_that_talks_is_replaced() {
    let arena = Arena::new();
    arena.unleash("talk");
    arena.load(Duration::from_millis(100), true);
    arena.wait_until_replaced();
    arena.end();
}

/// What honest workers say too, of modules that this one does not have, or has and was not asked about.
#[test]
fn a_worker_that_lies_about_its_modules_is_replaced() {
    for lie in ["want", "evict", "unload"] {
        let arena = Arena::new();
        arena.unleash(lie);
        arena.load(Duration::from_millis(50), true);
        arena.wait_until_replaced();
        arena.end();
    }
}

/// Packets that an honest worker may send, and far more of them than it would: the other worker does not wait for the supervisor, and the flood ends.
#[test]
fn a_worker_that_floods_the_control_socket_is_replaced() {
    let arena = Arena::new();
    arena.unleash("flood");
    arena.load(Duration::from_millis(100), true);
    arena.wait_until_replaced();
    let metrics = arena.node().metrics();
    let protocol =
        RestartCause::ALL.iter().position(|cause| *cause == RestartCause::Protocol).expect("a cause");
    assert_eq!(metrics.workers[0].restarts[protocol], 1);
    assert_eq!(metrics.workers[1].info.restarts, 0);
    arena.end();
}

/// A worker that was found lying is not the least busy one, though it has no calls left.
#[test]
fn a_liar_gets_no_more_calls() {
    for _ in 0..5 {
        let arena = Arena::new();
        let lie = arena.node().call("lie", Request::new(b"").deadline(PATIENCE));
        assert_eq!((lie.status, lie.worker), (Status::WorkerLost, Some(0)));
        arena.submitted.fetch_add(1, Ordering::Relaxed);
        let mut completion = Completion::default();
        for i in 0..200u32 {
            arena.call(&i.to_le_bytes(), &mut completion).expect("a slot of the honest worker is free");
            assert_eq!(completion.status, Status::Ok, "call {i}: {}", completion.detail);
        }
        arena.wait_until_replaced();
        arena.end();
    }
}
