//! A worker that ends is followed by a process that waited for it, with all that is deployed; nobody sees it before, and nothing waits for it.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use microfaas_e2e::versions::write;
use microfaas_e2e::{Watchdog, hostile_node, probe_node, program};
use microfaas_node::{
    BanCause, CallError, FunctionConfig, Health, Node, NodeBuilder, Request, Status, WorkerState,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(300);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// A spare that can take a place; waits for it.
fn spare(node: &Node) -> u32 {
    let mut ready = None;
    until("a spare", || {
        ready = node.spares().ready.first().copied();
        ready.is_some()
    });
    ready.unwrap()
}

/// Kills the first worker and waits for the next; the process ids of both.
fn replace(node: &Node) -> (u32, u32) {
    let before = node.workers()[0];
    signal(before.pid.unwrap(), Signal::SIGKILL);
    let serves = |node: &Node| {
        let now = node.workers()[0];
        now.generation > before.generation && now.state == WorkerState::Serving
    };
    until("another worker", || serves(node));
    (before.pid.unwrap(), node.workers()[0].pid.unwrap())
}

/// The cores that a process may use, as the kernel lists them.
fn cores(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    line.trim().to_owned()
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn echoes(node: &Node) {
    assert_eq!(node.invoke("echo", b"still here".as_slice()).unwrap().body, b"still here");
}

/// Version 1 of a module, in a directory where others can be put.
fn versioned() -> (NodeBuilder, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 1, '-');
    let builder = Node::builder().modules(directory.path()).worker_binary(program("microfaas-worker"));
    (builder.workers(1), directory)
}

fn version(node: &Node) -> String {
    let answer = node.call("version", Request::new(b""));
    assert_eq!(answer.status, Status::Ok, "{}", answer.detail);
    String::from_utf8(answer.body).unwrap()[..4].to_owned()
}

#[test]
fn a_dead_worker_is_followed_by_the_spare_on_its_core() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().start().unwrap();
    let waiting = spare(&node);
    let first = node.workers()[0];
    assert_eq!(node.spares().wanted, 1);
    assert_eq!(node.workers().len(), 1, "a spare is no worker");
    let sandbox = node.sandbox(0).unwrap();
    let (_, now) = replace(&node);
    assert_eq!(now, waiting);
    echoes(&node);
    let info = node.workers()[0];
    assert_eq!((info.generation, info.restarts, info.cpu), (2, 1, first.cpu));
    let core = first.cpu.expect("workers are pinned");
    assert_eq!(cores(now), core.to_string());
    assert_eq!(node.call("echo", b"".as_slice()).worker, Some(0));
    assert_eq!(node.sandbox(0).unwrap(), sandbox, "it is sealed in by the same");
    assert_eq!(node.health(), Health::Up);
    let next = spare(&node);
    assert_ne!(next, waiting);
    assert_eq!((node.spares().adopted, node.spares().ended), (1, 0));
    drop(node);
    assert!(![first.pid.unwrap(), now, next].into_iter().any(exists), "a process is left");
}

#[test]
fn ten_kills_in_a_row_are_ten_spares_and_no_call_is_lost() {
    let _watchdog = Watchdog::new(LIMIT);
    let again = FunctionConfig::default().idempotent(true);
    let node = probe_node().restarts(100).function("echo", again).start().unwrap();
    for round in 1..=10 {
        let waiting = spare(&node);
        let long = node.submit("sleep_spin", Request::new(b"20000")).unwrap();
        let queued = node.submit("echo", Request::new(b"queued").deadline(LIMIT)).unwrap();
        let (dead, now) = replace(&node);
        assert_eq!(now, waiting, "round {round}");
        assert_ne!(dead, now);
        // It may have been over, or not have started, too.
        assert!(matches!(long.wait().status, Status::WorkerLost | Status::Ok));
        assert_eq!(queued.wait().status, Status::Ok, "it is run once more if need be");
        echoes(&node);
        assert_eq!(node.spares().adopted, round);
    }
    assert_eq!(node.workers()[0].generation, 11);
    // What each of them has counted is in the books of its place. A call is counted after it is answered: who is killed between the two has not counted it.
    let metrics = node.metrics();
    let echo = metrics.functions.iter().find(|function| function.name == "echo").unwrap();
    assert!((10..=20).contains(&echo.total().calls_total()), "{echo:?}");
}

#[test]
fn what_is_deployed_is_in_the_spare_too() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, directory) = versioned();
    let node = builder.start().unwrap();
    let waiting = spare(&node);
    for number in 2..=4 {
        node.deploy(write(directory.path(), number, '-')).unwrap();
    }
    assert_eq!(replace(&node).1, waiting, "the deployments have reached it where it was");
    assert_eq!(version(&node), "0004");
    // Also what is deployed to one that was a spare.
    node.deploy(write(directory.path(), 5, '-')).unwrap();
    assert_eq!(version(&node), "0005");
    node.rollback("versions.so").unwrap();
    let waiting = spare(&node);
    assert_eq!(replace(&node).1, waiting);
    assert_eq!(version(&node), "0004");
    // What is refused changes no spare.
    let waiting = spare(&node);
    assert!(node.deploy(write(directory.path(), 6, 'P')).is_err());
    assert_eq!(replace(&node).1, waiting);
    assert_eq!(version(&node), "0004");
}

#[test]
fn a_spare_forgets_what_nobody_calls_any_more() {
    const ROUNDS: u32 = 30;
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, directory) = versioned();
    let node = builder.start().unwrap();
    let waiting = spare(&node);
    let modules = |pid: u32| {
        // Of another user, it can be read by root alone.
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        Some(maps.lines().filter(|line| line.contains("r-xp") && line.contains("memfd:")).count())
    };
    let few = modules(waiting);
    for number in 2..ROUNDS {
        node.deploy(write(directory.path(), number, '-')).unwrap();
    }
    until("the same number of modules as before", || modules(waiting) <= few);
    assert_eq!(spare(&node), waiting);
    assert_eq!(replace(&node).1, waiting);
    assert_eq!(version(&node), format!("{:04}", ROUNDS - 1));
}

#[test]
fn a_ban_holds_when_the_spare_serves() {
    let _watchdog = Watchdog::new(LIMIT);
    let config = FunctionConfig::default().ban_after(1);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let node = probe_node().function("abort", config).socket(&socket).start().unwrap();
    let waiting = spare(&node);
    assert_eq!(node.call("abort", b"".as_slice()).status, Status::Fault);
    assert_eq!(node.bans()[0].cause, BanCause::Faults);
    // A host that is attached relies on the workers for it.
    let host = Node::connect(&socket).unwrap();
    echoes(&host);
    assert_eq!(replace(&node).1, waiting);
    assert_eq!(node.invoke("abort", b"".as_slice()).unwrap_err(), CallError::Banned);
    until("an answer of the new worker", || {
        let answer = host.call("abort", b"".as_slice());
        assert_ne!(answer.status, Status::Fault, "a banned function has run");
        answer.status == Status::Banned
    });
    echoes(&host);
}

#[test]
fn attached_hosts_know_workers_only() {
    let _watchdog = Watchdog::new(LIMIT);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let node = probe_node().socket(&socket).start().unwrap();
    let waiting = spare(&node);
    let host = Node::connect(&socket).unwrap();
    echoes(&host);
    let pids = |node: &Node| node.workers().iter().map(|worker| worker.pid).collect::<Vec<_>>();
    assert_eq!(pids(&host), pids(&node));
    assert_eq!((host.workers().len(), host.spares().ready.len()), (1, 0));
    assert_eq!(replace(&node).1, waiting);
    until("the host's lane to the former spare", || {
        pids(&host) == [Some(waiting)] && host.call("echo", b"".as_slice()).status == Status::Ok
    });
}

#[test]
fn a_spare_that_is_killed_or_stopped_is_replaced() {
    let _watchdog = Watchdog::new(LIMIT);
    // What is not stopped answers within this, whatever else the machine does.
    let node = probe_node().heartbeat(Duration::from_secs(3)).start().unwrap();
    let worker = node.workers()[0];
    let first = spare(&node);
    signal(first, Signal::SIGKILL);
    until("another spare", || {
        let now = node.spares();
        now.ended == 1 && now.ready.iter().any(|pid| *pid != first)
    });
    let second = spare(&node);
    signal(second, Signal::SIGSTOP);
    until("another spare", || {
        let now = node.spares();
        now.ended == 2 && !now.ready.is_empty()
    });
    until("the end of the one that was stopped", || !exists(second));
    assert_eq!(node.workers()[0], worker, "the worker has nothing to do with it");
    assert_eq!(node.stats().restarts, 0);
    let third = spare(&node);
    assert_eq!(replace(&node).1, third);
    echoes(&node);
}

#[test]
fn one_that_is_stopped_takes_no_place() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().heartbeat(Duration::MAX).start().unwrap();
    let waiting = spare(&node);
    signal(waiting, Signal::SIGSTOP);
    until("the stop", || fs::read_to_string(format!("/proc/{waiting}/stat")).unwrap().contains(") T "));
    assert_ne!(replace(&node).1, waiting);
    echoes(&node);
    until("the end of the one that was stopped", || !exists(waiting));
    assert_eq!((node.spares().adopted, node.spares().ended), (0, 1));
}

#[test]
fn spares_that_end_all_the_time_wait_longer_and_longer_and_say_so() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().restarts(2).start().unwrap();
    let (start, mut ended, mut said) = (Instant::now(), 0, false);
    while !said {
        let (waiting, killed) = (spare(&node), Instant::now());
        signal(waiting, Signal::SIGKILL);
        ended += 1;
        until("the next one, or a pause", || {
            let now = node.spares();
            said |= now.backing_off;
            said || now.ready.first().is_some_and(|next| *next != waiting)
        });
        assert_eq!(node.spares().ended, ended);
        // What this thread was not quick enough to see has been so all the same. More than so many within ten seconds are not made good at once.
        let is_many = ended > 2 && start.elapsed() < Duration::from_secs(10);
        assert!(said || !is_many || killed.elapsed() >= Duration::from_millis(100), "{ended} have ended");
    }
    assert!(ended > 2, "two are made good at once");
    assert_eq!(node.health(), Health::Up, "those who serve have nothing to do with it");
    // Meanwhile a worker is replaced by one that is started.
    let (dead, now) = replace(&node);
    assert_ne!(dead, now);
    echoes(&node);
    spare(&node);
    assert!(!node.spares().backing_off);
}

#[test]
fn without_spares_workers_are_started_as_they_are_needed() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().spares(0).start().unwrap();
    replace(&node);
    echoes(&node);
    assert_eq!(node.spares(), microfaas_node::SpareInfo::default());
    let node = probe_node().spares(3).workers(2).start().unwrap();
    until("three spares", || node.spares().ready.len() == 3);
    let (ready, workers) = (node.spares().ready, node.workers());
    drop(node);
    let workers = workers.iter().filter_map(|worker| worker.pid);
    assert!(!ready.into_iter().chain(workers).any(exists), "a process is left");
    assert!(probe_node().spares(65).start().unwrap_err().to_string().starts_with("spares is 65"));
}

/// Processes that come up and then do not answer are no spares; the worker is one of them, and serves.
#[test]
fn a_spare_has_to_answer() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    // The worker does not answer either: it has so long to serve a call.
    let node = builder.spares(1).heartbeat(Duration::from_secs(3)).start().unwrap();
    let first = spare(&node);
    until("its end", || node.spares().ended > 0);
    until("its end", || !exists(first));
    echoes(&node);
    assert_eq!(node.stats().restarts, 0);
}
