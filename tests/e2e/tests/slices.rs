//! What a call may take of the core before others get it, and before it is ended: also where it overruns by less than the worker looks at once.
//!
//! What a worker has used is read from outside, off its own CPU clock: nothing here depends on how busy the machine is.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.

use std::time::Duration;

use microfaas_e2e::{Watchdog, probe_node};
use microfaas_node::{FunctionConfig, Limits, Node, Policy, Request, Status};

const LIMIT: Duration = Duration::from_secs(240);
/// What a function takes at first without being known to overrun: two calls; a few more where the machine took the core from them.
const UNKNOWN: usize = 10;

fn node(function: &str, limits: Limits) -> Node {
    let config = FunctionConfig::default().limits(limits).deadline(LIMIT);
    probe_node()
        .function(function, config)
        .deadline_default(LIMIT)
        .start()
        .expect("a node with the probe starts")
}

/// Rounds of `work_a` that take about so much CPU time.
fn rounds(node: &Node, time: Duration) -> u64 {
    const SOME: u64 = 1_000_000;
    let took = |_| node.call("work_b", SOME.to_string().as_bytes()).cpu_ns;
    let ns = (0..5).map(took).min().expect("five");
    let wanted = u64::try_from(time.as_nanos()).expect("a short time");
    (u128::from(wanted) * u128::from(SOME) / u128::from(ns.max(1))).try_into().expect("a number")
}

#[test]
fn a_call_that_overruns_by_less_than_the_worker_looks_is_found_out() {
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { quantum_ns: 100_000, policy: Policy::Kill, ..Limits::default() };
    let node = node("work_a", limits);
    let body = rounds(&node, Duration::from_millis(2)).to_string();
    let call = |body: &str| node.call("work_a", Request::new(body.as_bytes())).status;
    for _ in 0..2 {
        let statuses: Vec<_> = (0..50).map(|_| call(&body)).collect();
        let ok = statuses.iter().filter(|status| **status == Status::Ok).count();
        let ended = statuses.iter().filter(|status| **status == Status::Timeout).count();
        assert_eq!(ok + ended, statuses.len(), "{statuses:?}");
        assert!(ok <= UNKNOWN, "{ok} calls took 20 quanta each: {statuses:?}");
        // It is trusted again after enough that are short.
        for _ in 0..1000 {
            let status = call("10");
            assert!([Status::Ok, Status::Timeout].contains(&status), "{status:?}");
        }
    }
    assert_eq!(node.workers()[0].restarts, 0);
}

#[test]
fn short_calls_come_between_calls_that_overrun_by_less_than_the_worker_looks() {
    const CALLS: usize = 60;
    let _watchdog = Watchdog::new(LIMIT);
    let node = node("work_a", Limits { quantum_ns: 100_000, ..Limits::default() });
    let body = rounds(&node, Duration::from_millis(3)).to_string();
    let flood: Vec<_> = (0..CALLS)
        .map(|_| node.submit("work_a", Request::new(body.as_bytes())).expect("a free slot"))
        .collect();
    let left = || {
        node.poll();
        node.stats().outstanding
    };
    let mut between = 0;
    while left() > 0 {
        assert_eq!(node.invoke("echo", b"x".as_slice()).expect("it is served").body, b"x");
        between += 1;
    }
    for call in flood {
        assert_eq!(call.wait().status, Status::Ok);
    }
    // One for each slice of the others: thirty of these where a call is thirty quanta long, one where it is not interrupted.
    assert!(between > 4 * CALLS, "only {between} came between {CALLS} calls");
}
