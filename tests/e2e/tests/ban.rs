//! A function that harms is not called any more, until somebody says so; others do not notice.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.

use std::path::Path;
use std::time::Duration;

use microfaas_e2e::{Watchdog, attacks, breakable, probe_node, program, started};
use microfaas_node::{
    BanCause, CallError, Completion, FunctionConfig, Node, NodeBuilder, Request, Status, WorkerState,
};

const LIMIT: Duration = Duration::from_secs(300);

fn banned_after(faults: u32) -> FunctionConfig {
    FunctionConfig::default().ban_after(faults)
}

fn status(node: &Node, function: &str) -> Status {
    node.call(function, b"1".as_slice()).status
}

/// Names and causes of all bans.
fn bans(node: &Node) -> Vec<(String, BanCause)> {
    node.bans().into_iter().map(|ban| (ban.function, ban.cause)).collect()
}

#[test]
fn a_function_that_faults_too_often_is_banned_and_no_other() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().workers(2).function("abort", banned_after(3)).start().unwrap();
    for round in 0..2 {
        for _ in 0..3 {
            assert_eq!(bans(&node), []);
            assert_eq!(status(&node, "abort"), Status::Fault, "round {round}");
        }
        assert_eq!(bans(&node), [("abort".to_owned(), BanCause::Faults)]);
        let accepted = node.stats().accepted();
        let banned = node.call("abort", b"".as_slice());
        assert_eq!((banned.status, banned.never_started, banned.worker), (Status::Banned, true, None));
        assert_eq!(node.submit("abort", Request::new(b"")).unwrap_err(), CallError::Banned);
        let handle = node.function("abort").unwrap();
        assert_eq!(node.prepare(handle, 10, 0).unwrap_err(), CallError::Banned);
        assert_eq!(node.stats().accepted(), accepted, "a banned call has reached a worker");
        assert_eq!(node.invoke("echo", b"next".as_slice()).unwrap().body, b"next");
        for _ in 0..10 {
            assert_eq!(status(&node, "overflow"), Status::Fault, "nobody has set a limit for it");
        }
        assert_eq!((node.lift_ban("abort"), node.lift_ban("abort")), (Ok(true), Ok(false)));
    }
    assert_eq!(node.lift_ban("nobody"), Err(CallError::UnknownFunction));
    assert_eq!(node.stats().restarts, 0);
}

#[test]
fn only_faults_and_forbidden_system_calls_count() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().ban_after(1).function("overflow", banned_after(0)).start().unwrap();
    for (function, expected) in [
        ("panic", Status::Panic),
        ("oom", Status::Oom),
        ("fail", Status::Error),
        ("echo", Status::Ok),
        ("overflow", Status::Fault),
    ] {
        for _ in 0..3 {
            assert_eq!(status(&node, function), expected, "{function}");
        }
    }
    let late = Request::new(b"").deadline(Duration::from_millis(20));
    for _ in 0..3 {
        assert_eq!(started(&node, "spin_forever", late).status, Status::Timeout);
    }
    assert_eq!(bans(&node), []);
    assert_eq!((status(&node, "abort"), status(&node, "abort")), (Status::Fault, Status::Banned));
}

/// A call that reaches a worker; calls that a dying worker took with it are made again.
fn call_when_up(node: &Node, function: &str) -> Completion {
    loop {
        let completion = node.call(function, b"body".as_slice());
        if !matches!(completion.status, Status::WorkerLost | Status::Overloaded) {
            return completion;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Settings of a node with the attack suite's cases as one module and the probe as another, and how many cases there are.
fn attacked() -> (NodeBuilder, usize) {
    let cases = attacks::read_all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../attacks")));
    let modules = attacks::build_cases(Path::new(env!("CARGO_TARGET_TMPDIR")), &cases);
    (Node::builder().modules(modules).workers(1), cases.len())
}

const WILD: &str = "036_fault_noncanonical";
const SIBLING: &str = "099_ctl_echo";

#[test]
fn a_module_that_breaks_memory_safety_is_banned_at_once() {
    let _watchdog = Watchdog::new(LIMIT);
    let denied = "050_sys_read_passwd";
    let (builder, cases) = attacked();
    let node = builder.function(denied, banned_after(1)).start().unwrap();

    // A forbidden system call that safe code can make is a fault as others are.
    assert_eq!((status(&node, denied), status(&node, denied)), (Status::Denied, Status::Banned));
    assert_eq!((status(&node, SIBLING), node.stats().restarts), (Status::Ok, 0));

    for _ in 0..2 {
        assert_eq!(call_when_up(&node, SIBLING).status, Status::Ok);
        assert_eq!(call_when_up(&node, WILD).status, Status::Fault);
        for function in [WILD, SIBLING, denied] {
            assert_eq!(status(&node, function), Status::Banned, "{function}");
        }
        assert!(bans(&node).iter().all(|(_, cause)| *cause == BanCause::MemorySafety));
        assert_eq!(node.bans().len(), cases, "the whole module, and no other");
        assert_eq!(call_when_up(&node, "echo").body, b"body", "of another module");
        assert_eq!(node.lift_ban(SIBLING), Ok(true));
        assert_eq!(bans(&node), []);
    }
}

#[test]
fn a_banned_function_is_banned_also_while_there_is_no_worker() {
    let _watchdog = Watchdog::new(LIMIT);
    let folder = tempfile::tempdir().unwrap();
    let (worker, broken) = breakable(&program("microfaas-worker"), folder.path());
    let builder = probe_node().worker_binary(worker).restarts(0).spares(0);
    let node = builder.function("abort", banned_after(1)).start().unwrap();
    assert_eq!((status(&node, "abort"), bans(&node).len()), (Status::Fault, 1));
    // Its replacement waits, and does not come up.
    std::fs::write(broken, "").unwrap();
    let pid = node.workers()[0].pid.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    until(|| node.workers()[0].state == WorkerState::BackingOff);
    assert_eq!(status(&node, "abort"), Status::Banned);
}

/// Waits for what comes about by way of the supervisor; the watchdog says when it is too late.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_ban_holds_for_attached_hosts_and_their_faults_count() {
    let _watchdog = Watchdog::new(LIMIT);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let node = probe_node().workers(2).function("abort", banned_after(3)).socket(&path).start().unwrap();
    let host = Node::connect(&path).unwrap();
    for _ in 0..3 {
        assert_eq!(status(&host, "abort"), Status::Fault);
    }
    until(|| !node.bans().is_empty());
    assert_eq!(status(&node, "abort"), Status::Banned);
    until(|| status(&host, "abort") == Status::Banned);
    let banned = host.call("abort", b"".as_slice());
    assert_eq!((banned.status, banned.never_started), (Status::Banned, true));
    assert_eq!(host.invoke("echo", b"next".as_slice()).unwrap().body, b"next");
    assert_eq!(node.lift_ban("abort"), Ok(true));
    until(|| status(&host, "abort") == Status::Fault);
    assert_eq!(node.stats().restarts, 0);
}

#[test]
fn a_worker_that_comes_later_knows_the_bans() {
    let _watchdog = Watchdog::new(LIMIT);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (builder, cases) = attacked();
    let node = builder.socket(&path).start().unwrap();
    let host = Node::connect(&path).unwrap();
    assert_eq!(call_when_up(&host, SIBLING).status, Status::Ok);
    assert_eq!(call_when_up(&host, WILD).status, Status::Fault);
    // The worker that has run it runs nothing any more.
    assert_eq!(call_when_up(&host, SIBLING).status, Status::Banned);
    assert_eq!(node.bans().len(), cases);
    assert_eq!(call_when_up(&host, "echo").body, b"body");
    assert_eq!(node.stats().restarts, 1);
}
