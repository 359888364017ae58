//! Why a worker was replaced is counted by cause.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::time::Duration;

use microfaas_e2e::{Watchdog, breakable, hostile_node, hostile_worker, probe_node, started};
use microfaas_node::{Node, NodeBuilder, Request, RestartCause, WorkerState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(120);

fn times(node: &Node, cause: RestartCause) -> u64 {
    let at = RestartCause::ALL.iter().position(|of| *of == cause).unwrap();
    node.metrics().workers[0].restarts[at]
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The only worker is replaced once, for this.
fn replaced(node: &Node, cause: RestartCause) {
    until(cause.name(), || times(node, cause) == 1);
    until("another worker", || node.workers()[0].state == WorkerState::Serving);
    assert_eq!(node.metrics().workers[0].restarts.iter().sum::<u64>(), 1, "{cause:?} alone");
}

fn signal(node: &Node, signal: Signal) {
    let pid = i32::try_from(node.workers()[0].pid.unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn hostile(change: fn(NodeBuilder) -> NodeBuilder) -> (Node, tempfile::TempDir) {
    let (builder, directory) = hostile_node("echo");
    (change(builder).start().unwrap(), directory)
}

#[test]
fn one_that_does_not_let_go_of_a_call_hangs() {
    let _watchdog = Watchdog::new(LIMIT);
    let (node, _directory) = hostile(|builder| builder.stall(Duration::from_secs(1)));
    // It is started before its time is up, or nothing hangs.
    let _ = started(&node, "hang", Request::new(b"").deadline(Duration::from_millis(100)));
    replaced(&node, RestartCause::Hung);
}

#[test]
fn one_that_lies_breaks_the_protocol_of_the_lane() {
    let _watchdog = Watchdog::new(LIMIT);
    let (node, _directory) = hostile(|builder| builder);
    let _ = node.call("lie", Request::new(b"").deadline(Duration::from_secs(60)));
    replaced(&node, RestartCause::Violation);
}

#[test]
fn one_that_is_stopped_is_silent() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().heartbeat(Duration::from_secs(1)).spares(0).start().unwrap();
    signal(&node, Signal::SIGSTOP);
    let call = node.submit("echo", Request::new(b"").deadline(LIMIT)).unwrap();
    replaced(&node, RestartCause::Silent);
    assert_eq!(call.wait().into_result().unwrap().body, b"");
}

#[test]
fn one_that_does_not_come_up_is_another_cause_than_the_end_of_the_one_before() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let folder = tempfile::tempdir().unwrap();
    let (program, broken) = breakable(&hostile_worker(), folder.path());
    let node = builder.worker_binary(&program).start().unwrap();
    std::fs::write(&broken, "").unwrap();
    signal(&node, Signal::SIGKILL);
    until("a launch that fails", || times(&node, RestartCause::Launch) > 0);
    std::fs::remove_file(&broken).unwrap();
    until("a worker", || node.workers()[0].state == WorkerState::Serving);
    assert_eq!(times(&node, RestartCause::Died), 1);
    assert_eq!(times(&node, RestartCause::Hung) + times(&node, RestartCause::Silent), 0);
}
