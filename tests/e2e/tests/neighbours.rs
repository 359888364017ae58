//! Hosts that share a worker: calls of one function that keeps its state wait for each other, and for nothing else; and nobody takes a worker for hung that is in
//! another's long slice.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::path::Path;
use std::time::Duration;

use microfaas_control::attach::{Complaint, FromHost, ToHost};
use microfaas_e2e::raw_host::RawHost;
use microfaas_e2e::{Watchdog, attacks, probe_node};
use microfaas_node::{FunctionConfig, Limits, Node, Request, Status};

const LIMIT: Duration = Duration::from_secs(300);
/// Far more than a slice.
const LONG: Duration = Duration::from_secs(60);

/// Settings of a function that keeps its state and may run for long.
fn stateful() -> FunctionConfig {
    let budget_ns = u64::try_from(LONG.as_nanos()).unwrap();
    FunctionConfig::default().limits(Limits { stateful: true, budget_ns, ..Limits::default() }).deadline(LONG)
}

#[test]
fn a_call_that_waits_for_one_whose_host_goes_is_made() {
    let _watchdog = Watchdog::new(LIMIT);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let node = probe_node().function("sleep_spin", stateful()).socket(&path).start().unwrap();
    for _ in 0..5 {
        let mut host = RawHost::attach(&path).unwrap();
        let spin = host.function("sleep_spin");
        let _ = host.lanes[0].submit(spin, b"60000000");
        // It runs, so what comes after it waits.
        std::thread::sleep(Duration::from_millis(20));
        let call = node.submit("sleep_spin", Request::new(b"1")).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        drop(host);
        assert_eq!(call.wait().status, Status::Ok);
    }
    assert_eq!(node.stats().restarts, 0);
}

#[test]
fn a_worker_whose_waiting_calls_are_banned_goes_on() {
    let _watchdog = Watchdog::new(LIMIT);
    let cases = attacks::read_all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../attacks")));
    let modules = attacks::build_cases(Path::new(env!("CARGO_TARGET_TMPDIR")), &cases);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (endless, wild) = ("001_cpu_leaf_loop", "036_fault_noncanonical");
    let node = Node::builder().modules(modules).workers(2).function(endless, stateful()).socket(&path);
    let node = node.function("spin_forever", stateful()).start().unwrap();
    let mut host = RawHost::attach(&path).unwrap();
    let [endless_number, other, wild, echo] =
        [endless, "spin_forever", wild, "echo"].map(|name| host.function(name));
    // On the first worker two that go on for long, of which one holds its function's state.
    let at = |worker| move |lane: &microfaas_e2e::raw_host::RawLane| lane.worker == worker;
    let first = host.lanes.iter().position(at(0)).unwrap();
    let second = host.lanes.iter().position(at(1)).unwrap();
    for function in [endless_number, other] {
        let _ = host.lanes[first].submit(function, b"1");
    }
    std::thread::sleep(Duration::from_millis(20));
    // One on each: that on the first waits.
    let calls = [(); 2].map(|()| node.submit(endless, Request::new(b"1")).unwrap());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(calls.each_ref().map(|call| call.worker()).iter().flatten().sum::<u32>(), 1);
    // On the second, what has the whole module banned.
    let _ = host.lanes[second].submit(wild, b"");
    while node.bans().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(100));
    let ticket = host.lanes[first].submit(echo, b"x");
    while host.lanes[first].outcome(ticket).is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(calls);
}

#[test]
fn a_worker_in_a_long_slice_does_not_hang() {
    let _watchdog = Watchdog::new(LIMIT);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    // A quantum of several times the grace after which a worker counts as hung.
    let quantum_ns = 3_000_000_000;
    let limits = Limits { quantum_ns, budget_ns: 10 * quantum_ns, ..Limits::default() };
    let long = FunctionConfig::default().limits(limits).deadline(LONG);
    let node = probe_node().function("sleep_spin", long).socket(&path).start().unwrap();
    let host = RawHost::attach(&path).unwrap();
    let calls = [(); 2].map(|()| node.submit("sleep_spin", Request::new(b"2500000")).unwrap());
    std::thread::sleep(Duration::from_millis(20));
    host.say(&FromHost::Complaint { lane: host.lanes[0].number, about: Complaint::Hangs }).unwrap();
    while !matches!(host.hear().unwrap().0, ToHost::Gone { .. }) {}
    for call in calls {
        assert_eq!(call.wait().status, Status::Ok);
    }
    assert_eq!(node.stats().restarts, 0);
}
