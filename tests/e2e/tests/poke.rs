//! A long call that is alone gets long slices. Who comes behind it does not wait for their end.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.

use std::time::Duration;

use microfaas_e2e::{Watchdog, probe_node};
use microfaas_node::{FunctionConfig, Limits, Node, Request, Status};

const LIMIT: Duration = Duration::from_secs(120);
/// With 1 ms of quantum, slices are up to 4 ms long.
const LONG_SLICES: u64 = 20;

fn node(function: &str) -> Node {
    let limits = Limits { quantum_ns: 1_000_000, budget_ns: 600_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(Duration::MAX);
    probe_node().function(function, config).deadline_default(LIMIT).start().expect("the node starts")
}

/// Calls somebody else, after a while in which a slice may have become longer than a quantum.
fn call_another(node: &Node, round: u64) {
    std::thread::sleep(Duration::from_millis(3));
    let body = round.to_le_bytes();
    let answer = node.call("echo", body.as_slice());
    assert_eq!((answer.status, answer.body.as_slice()), (Status::Ok, body.as_slice()), "{}", answer.detail);
}

#[test]
fn short_calls_end_the_long_slices_of_an_endless_one() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = node("spin_forever");
    let mut endless = node.submit("spin_forever", Request::new(b"")).unwrap();
    let mut round = 0;
    while node.stats().pokes < LONG_SLICES {
        call_another(&node, round);
        round += 1;
    }
    assert!(endless.try_take().is_none(), "the endless call has ended");
    assert_eq!(node.workers()[0].restarts, 0);
}

#[test]
fn a_call_that_is_poked_computes_what_it_computes_alone() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = node("hash_loop");
    let alone = node.invoke("hash_loop", b"3000000".as_slice()).unwrap().body;
    let mut round = 0;
    while node.stats().pokes < LONG_SLICES {
        let mut call = node.submit("hash_loop", Request::new(b"3000000")).unwrap();
        let completion = loop {
            call_another(&node, round);
            round += 1;
            if let Some(completion) = call.try_take() {
                break completion;
            }
        };
        assert_eq!(completion.into_result().unwrap().body, alone);
    }
    assert_eq!(node.workers()[0].restarts, 0);
}
