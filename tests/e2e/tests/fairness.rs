//! A worker that has more to do than it can is fair: to functions by what they use of the core, to hosts before that, and nothing is lost or mixed up on the way.
//!
//! What is compared was counted in the same time: what the machine does beside that is the same for both.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use microfaas_e2e::host::{at_work, cpu_ns};
use microfaas_e2e::{Watchdog, probe_node};
use microfaas_node::{Call, FunctionConfig, Limits, Node, NodeBuilder, Request, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(200);
const FLOOD: usize = 100;
/// Rounds of work: a part of a quantum, and some quanta.
const SHORT: &str = "100000";
const LONG: &str = "6000000";

fn submit(node: &Node, function: &str, body: &[u8]) -> Call {
    node.submit(function, Request::new(body).deadline(PATIENCE)).unwrap()
}

/// A node whose only worker has slots enough for all.
fn roomy_node() -> NodeBuilder {
    probe_node().slots(256, 0)
}

/// Settings of a function that keeps its state.
fn stateful() -> FunctionConfig {
    let budget_ns = u64::try_from(PATIENCE.as_nanos()).unwrap();
    let limits = Limits { stateful: true, budget_ns, ..Limits::default() };
    FunctionConfig::default().limits(limits).deadline(PATIENCE)
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

/// A call that is over: when, and what it used of the core, in nanoseconds.
#[derive(Clone, Copy)]
struct Ended {
    at_ns: u64,
    cpu_ns: u64,
}

fn ended(call: Call) -> Ended {
    let completion = call.wait();
    assert_eq!(completion.status, Status::Ok, "{}", completion.detail);
    let at_ns = std::str::from_utf8(&completion.body).unwrap().parse().unwrap();
    Ended { at_ns, cpu_ns: completion.cpu_ns }
}

/// Calls that are submitted at once.
struct Wave<'a> {
    node: &'a Node,
    functions: &'a [&'a str],
    /// Of each function.
    calls: usize,
    rounds: &'a str,
}

impl Wave<'_> {
    fn submit(&self) -> Vec<Call> {
        let each = (0..self.calls).flat_map(|_| self.functions);
        each.map(|function| submit(self.node, function, self.rounds.as_bytes())).collect()
    }
}

/// What was used of the core while calls of both waited: from when all were submitted until the last of the smaller wave ended.
#[derive(Debug)]
struct Used {
    flood: u64,
    other: u64,
    /// The longest call of both: as much as one may have used before or after, or have been charged when another process had the core.
    longest: u64,
}

/// Submits a flood, and then a wave that is smaller. Again, where some calls of that, or all of those, were over before all were submitted.
fn used(flood: &Wave<'_>, other: &Wave<'_>) -> Used {
    for _ in 0..100 {
        let floods = flood.submit();
        let others = other.submit();
        let from = now_ns();
        let others: Vec<_> = others.into_iter().map(ended).collect();
        let floods: Vec<_> = floods.into_iter().map(ended).collect();
        let to = others.iter().map(|call| call.at_ns).max().unwrap();
        let is_between = |call: &&Ended| (from..=to).contains(&call.at_ns);
        let sum = |calls: &[Ended]| calls.iter().filter(is_between).map(|call| call.cpu_ns).sum();
        let longest = floods.iter().chain(&others).map(|call| call.cpu_ns).max().unwrap();
        let used = Used { flood: sum(&floods), other: sum(&others), longest };
        let missing = others.iter().filter(|call| call.at_ns < from).count();
        let left = floods.iter().filter(|call| call.at_ns > to).count();
        if missing < others.len() / 4 && left > 0 {
            eprintln!("{used:?}");
            return used;
        }
    }
    panic!("the waves never met");
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what} did not happen");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// In the order of its ring it would wait for a hundred of the others.
#[test]
fn who_calls_one_by_one_waits_for_one_slice_and_not_for_a_flood() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = roomy_node().start().unwrap();
    for rounds in [SHORT, LONG] {
        let mut waited = Vec::new();
        while waited.len() < 20 {
            let flood = Wave { node: &node, functions: &["work_a"], calls: 100, rounds }.submit();
            let mut times = Vec::new();
            while node.stats().outstanding > 20 {
                let call = submit(&node, "work_b", b"0");
                let from = now_ns();
                times.push((from, ended(call).at_ns));
            }
            let flood: Vec<_> = flood.into_iter().map(|call| ended(call).at_ns).collect();
            let passed = |(from, to): &(u64, u64)| flood.iter().filter(|at| (from..=to).contains(at)).count();
            waited.extend(times.iter().map(passed));
        }
        // That of the one that ran when it came, and of one that began before the worker had looked.
        assert!(waited.iter().all(|&calls| calls <= 2), "ends of others before the own: {waited:?}");
    }
}

/// As much time for the one as for the other, though five times as many calls of the one wait.
#[test]
fn functions_that_ask_for_more_than_there_is_get_the_same_time() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = roomy_node().start().unwrap();
    for (rounds, others) in [(SHORT, SHORT), (LONG, "1000000")] {
        let flood = Wave { node: &node, functions: &["work_a"], calls: 150, rounds };
        let other = Wave { node: &node, functions: &["work_b"], calls: 30, rounds: others };
        let used = used(&flood, &other);
        // Some calls of the flood may have been about to end, each with what it had used before.
        assert!(used.flood <= used.other * 5 / 4 + 10 * used.longest, "{used:?}");
    }
}

/// Process id of the only worker.
fn worker(node: &Node) -> u32 {
    node.workers()[0].pid.unwrap()
}

/// Calls that have not come back.
fn left(node: &Node) -> u64 {
    node.poll();
    node.stats().outstanding
}

/// Nor has one that was alone for long to wait until others have had as much.
#[test]
fn what_was_used_while_nobody_waited_is_not_held_against_a_function() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = roomy_node().start().unwrap();
    let alone = ended(submit(&node, "work_a", b"600000000"));
    let each = ended(submit(&node, "work_b", b"6000000"));
    let calls = usize::try_from(alone.cpu_ns / 2 / each.cpu_ns).unwrap().min(200);
    let passed = (0..10).any(|_| {
        let used = || cpu_ns(worker(&node)).unwrap();
        let began = used();
        let long = submit(&node, "work_a", b"600000000");
        // Less than before may be all of it.
        wait_until("most of its work", || used() - began >= alone.cpu_ns / 10 * 8 || left(&node) == 0);
        let others = Wave { node: &node, functions: &["work_b"], calls, rounds: "6000000" }.submit();
        let since = now_ns();
        let last = others.into_iter().map(|call| ended(call).at_ns).max().unwrap();
        (since..last).contains(&ended(long).at_ns)
    });
    assert!(passed, "it was served after all the others");
}

/// One host calls three functions, another one: each has half.
#[test]
fn a_host_gains_nothing_by_calling_many_functions() {
    let _watchdog = Watchdog::new(LIMIT);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let node = roomy_node().socket(&socket).start().unwrap();
    let host = Node::connect(&socket).unwrap();
    for (floods, asks) in [(&node, &host), (&host, &node)] {
        let flood =
            Wave { node: floods, functions: &["work_a", "work_b", "work_c"], calls: 60, rounds: SHORT };
        let used = used(&flood, &Wave { node: asks, functions: &["work_a"], calls: 50, rounds: SHORT });
        // By functions it would be three times as much.
        assert!(used.flood <= used.other * 5 / 4 + 3 * used.longest, "{used:?}");
    }
}

/// However many long calls there are of one function, others find a context.
#[test]
fn a_flood_of_long_calls_does_not_take_the_contexts_of_others() {
    let _watchdog = Watchdog::new(LIMIT);
    for suspended_max in [1, 2, 16] {
        let node = roomy_node().suspended_max(suspended_max).start().unwrap();
        let mut waited = Vec::new();
        while waited.len() < 5 {
            let flood = Wave { node: &node, functions: &["work_a"], calls: FLOOD, rounds: LONG }.submit();
            // As many are suspended by now as can be.
            wait_until("the first end", || left(&node) < FLOOD as u64);
            // Only while there are so many left that it could have waited for more than is allowed.
            let mut times = Vec::new();
            while times.len() < 5 && left(&node) > FLOOD as u64 / 4 * 3 {
                let call = submit(&node, "work_b", b"0");
                let from = now_ns();
                times.push((from, ended(call).at_ns));
            }
            let flood: Vec<_> = flood.into_iter().map(|call| ended(call).at_ns).collect();
            let passed = |(from, to): &(u64, u64)| flood.iter().filter(|at| (from..=to).contains(at)).count();
            waited.extend(times.iter().map(passed));
        }
        assert!(
            waited.iter().all(|&calls| calls <= FLOOD / 8),
            "with {suspended_max} suspended, ends of others before the own: {waited:?}"
        );
    }
}

/// Blocks the calls of all functions that keep their state: one that runs for long and is suspended, since others want the core.
fn block(node: &Node, time_us: &[u8]) -> Call {
    at_work(worker(node), || submit(node, "sleep_spin", time_us))
}

fn stateful_node() -> NodeBuilder {
    roomy_node().function("sleep_spin", stateful()).function("counter", stateful())
}

fn counts(calls: impl IntoIterator<Item = Call>) -> Vec<String> {
    let answer = |call: Call| String::from_utf8(call.wait().body).unwrap();
    calls.into_iter().map(answer).collect()
}

fn from_one_on(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{n} {n}")).collect()
}

#[test]
fn calls_of_a_function_start_in_the_order_of_submission() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = stateful_node().start().unwrap();
    let mut calls = Vec::new();
    let blocker = block(&node, b"100000");
    // Some wait for the state, with others between them, some for their turn.
    for round in 0..60 {
        calls.push(submit(&node, "counter", b""));
        let others = submit(&node, if round % 2 == 0 { "checkpoint_spin" } else { "echo" }, b"500");
        drop(others);
    }
    assert_eq!(counts(calls), from_one_on(60));
    assert_eq!(blocker.wait().status, Status::Ok);
}

#[test]
fn what_is_taken_back_while_it_waits_for_its_turn_never_runs() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = stateful_node().start().unwrap();
    let blocker = block(&node, b"3000000");
    let mut calls: Vec<_> = (0..40).map(|_| submit(&node, "counter", b"")).collect();
    let expires = Request::new(b"").deadline(Duration::from_millis(50));
    let late = node.submit("counter", expires).unwrap();
    // They are off the ring.
    std::thread::sleep(Duration::from_millis(20));
    for place in [39, 20, 10, 1, 0] {
        assert!(calls.remove(place).cancel(), "it had not started");
    }
    let late = late.wait();
    assert_eq!((late.status, late.never_started), (Status::Expired, true));
    assert_eq!(counts(calls), from_one_on(35));
    assert_eq!(blocker.wait().status, Status::Ok);
    assert_eq!(counts([submit(&node, "counter", b"")]), ["36 36"]);
}

#[test]
fn what_waits_for_its_turn_at_a_worker_that_dies_runs_at_another() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = stateful_node().start().unwrap();
    let blocker = block(&node, b"60000000");
    let calls: Vec<_> = (0..40).map(|_| submit(&node, "counter", b"")).collect();
    std::thread::sleep(Duration::from_millis(20));
    let pid = node.workers()[0].pid.unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(blocker.wait().status, Status::WorkerLost);
    let mut answers = counts(calls);
    // Moved calls keep no order among each other.
    answers.sort_by_key(|answer| answer.split(' ').next().and_then(|n| n.parse::<u64>().ok()));
    assert_eq!(answers, from_one_on(40));
}

/// What waits in a worker goes with its host.
#[test]
fn what_a_host_that_goes_leaves_behind_does_not_run() {
    let _watchdog = Watchdog::new(LIMIT);
    let folder = tempfile::tempdir().unwrap();
    let socket: &Path = &folder.path().join("socket");
    let node = stateful_node().socket(socket).start().unwrap();
    let host = Node::connect(socket).unwrap();
    let blocker = block(&node, b"3000000");
    let left: Vec<_> = (0..40).map(|_| submit(&host, "counter", b"")).collect();
    std::thread::sleep(Duration::from_millis(20));
    drop(left);
    drop(host);
    assert_eq!(counts([submit(&node, "counter", b"")]), ["1 1"]);
    assert_eq!(blocker.wait().status, Status::Ok);
    assert_eq!(node.stats().restarts, 0);
}

/// Nobody comes later who would interrupt the long one.
#[test]
fn short_calls_do_not_wait_for_the_end_of_a_long_one_of_their_own_function() {
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { budget_ns: 200_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(PATIENCE);
    let node = roomy_node().stall(LIMIT).function("sleep_spin", config).start().unwrap();
    let mut long = submit(&node, "sleep_spin", b"60000000");
    for _ in 0..3 {
        let calls: Vec<Call> = (0..FLOOD).map(|_| submit(&node, "sleep_spin", b"10")).collect();
        for call in calls {
            assert_eq!(call.wait().status, Status::Ok);
        }
        assert!(long.try_take().is_none(), "they have waited for it");
    }
}
