//! Real functions in a real worker: how each call ends, and that nothing of it is left for the next.

use std::time::Duration;

use microfaas_control::BUDGET_NS_MAX;
use microfaas_e2e::{Watchdog, probe_node, started};
use microfaas_node::{Call, Completion, FunctionConfig, Limits, Node, Policy, Request, Status};

const LIMIT: Duration = Duration::from_secs(120);

fn call(node: &Node, name: &str, body: &[u8]) -> Completion {
    node.call(name, Request::new(body))
}

/// Checks a call and that the worker goes on serving after it, in the same process.
fn check(node: &Node, name: &str, body: &[u8], status: Status, text: &str) {
    let before = node.workers()[0].pid;
    let answer = call(node, name, body);
    let said = String::from_utf8_lossy(&answer.body).into_owned() + &answer.detail;
    assert_eq!(answer.status, status, "{name}: {said}");
    assert!(said.contains(text), "{name}: `{text}` is not in `{said}`");
    assert_eq!(call(node, "echo", b"next").body, b"next", "the call after {name}");
    assert_eq!(node.workers()[0].pid, before, "{name} cost the worker");
}

#[test]
fn each_end_of_a_call_is_its_own_status_and_the_worker_goes_on() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().arena_bytes(64 << 20).start().unwrap();
    check(&node, "echo", b"hello", Status::Ok, "hello");
    check(&node, "echo_vec", b"hello", Status::Ok, "hello");
    check(&node, "fail", b"no tea", Status::Error, "no tea");
    check(&node, "fail_late", b"", Status::Error, "invalid digit");
    check(&node, "panic", b"oh no", Status::Panic, "oh no");
    check(&node, "oom", b"", Status::Oom, "67108864");
    check(&node, "overflow", b"", Status::Fault, "stack overflow");
    check(&node, "big", b"16777216", Status::Ok, "");
    check(&node, "big", b"16777217", Status::TooLarge, "16777216");
}

#[test]
fn bodies_of_every_size_come_back_as_they_were() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().start().unwrap();
    for size in [0, 1, 7, 8, 63, 64, 4079, 4080, 4081, 4096, 4097, 5000, 65_536, 1 << 20, 16 << 20] {
        let body: Vec<u8> = (0..size).map(|i: u32| u8::try_from(i.wrapping_mul(31) % 256).unwrap()).collect();
        for name in ["echo", "echo_vec"] {
            let answer = call(&node, name, &body);
            assert_eq!(answer.status, Status::Ok, "{name} of {size} bytes: {}", answer.detail);
            assert!(answer.body == body, "{name} of {size} bytes came back otherwise");
        }
    }
}

#[test]
fn nothing_is_left_for_the_next_call() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().start().unwrap();
    for _ in 0..3 {
        for name in ["hoard", "hoard_local", "counter", "init_state"] {
            let fresh = String::from_utf8(call(&node, name, b"").body).unwrap();
            for _ in 0..50 {
                assert_eq!(String::from_utf8(call(&node, name, b"").body).unwrap(), fresh, "{name}");
            }
        }
        assert_eq!(call(&node, "hoard", b"").body, b"1");
        // What ends without returning leaves no more.
        for name in ["panic", "oom", "overflow"] {
            call(&node, name, b"x");
        }
    }
}

fn with_limits(names: &[&str], limits: Limits) -> Node {
    let config = FunctionConfig::default().limits(limits);
    let start = |builder: microfaas_node::NodeBuilder| builder.start().expect("a node with the probe starts");
    start(names.iter().fold(probe_node(), |builder, name| builder.function(*name, config.clone())))
}

#[test]
fn an_endless_call_is_ended_at_its_budget_and_others_run_meanwhile() {
    let _watchdog = Watchdog::new(LIMIT);
    // One that would go on for an hour.
    let limits = Limits { quantum_ns: 500_000, budget_ns: BUDGET_NS_MAX, ..Limits::default() };
    let node = with_limits(&["spin_forever"], limits);
    let mut endless = node.submit("spin_forever", Request::new(b"").deadline(Duration::MAX)).unwrap();
    for _ in 0..20 {
        assert_eq!(call(&node, "echo", b"beside").body, b"beside");
    }
    assert!(endless.try_take().is_none(), "it has come to an end");
    drop((endless, node));
    let limits = Limits { budget_ns: 300_000_000, ..limits };
    let node = with_limits(&["spin_forever", "checkpoint_spin"], limits);
    let pid = node.workers()[0].pid;
    let endless = node.submit("spin_forever", Request::new(b"")).unwrap();
    assert_eq!(call(&node, "echo", b"beside").body, b"beside");
    let answer = endless.wait();
    assert_eq!(answer.status, Status::Timeout, "{}", answer.detail);
    assert!(answer.cpu_ns >= 270_000_000, "ended after {} ns of CPU, before its budget", answer.cpu_ns);
    // A function with safe points is ended by unwinding, before the budget is quite spent.
    let unwound = call(&node, "checkpoint_spin", b"60000000");
    assert_eq!(unwound.status, Status::Timeout, "{}", unwound.detail);
    assert_eq!(node.workers()[0].pid, pid);
}

#[test]
fn the_first_overrun_ends_a_call_under_kill() {
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { quantum_ns: 2_000_000, policy: Policy::Kill, ..Limits::default() };
    let node = with_limits(&["sleep_spin"], limits);
    for _ in 0..20 {
        assert_eq!(call(&node, "sleep_spin", b"30000000").status, Status::Timeout);
        assert_eq!(call(&node, "sleep_spin", b"10").status, Status::Ok);
    }
}

#[test]
fn a_deadline_stops_a_running_call() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().start().unwrap();
    let pid = node.workers()[0].pid;
    for _ in 0..5 {
        let request = Request { deadline: Some(Duration::from_millis(30)), ..Request::new(b"") };
        assert_eq!(started(&node, "spin_forever", request).status, Status::Timeout);
        assert_eq!(call(&node, "echo", b"on").body, b"on");
    }
    assert_eq!(node.workers()[0].pid, pid);
}

#[test]
fn suspended_calls_of_one_function_keep_their_own_state() {
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { quantum_ns: 200_000, ..Limits::default() };
    let node = with_limits(&["sleep_spin", "hash_loop"], limits);
    let alone = call(&node, "hash_loop", b"300000").body;
    for _ in 0..10 {
        let calls: Vec<Call> =
            (0..6).map(|_| node.submit("hash_loop", Request::new(b"300000")).unwrap()).collect();
        for _ in 0..5 {
            assert_eq!(call(&node, "counter", b"").status, Status::Ok);
        }
        for call in calls {
            let answer = call.wait();
            assert_eq!(answer.status, Status::Ok, "{}", answer.detail);
            assert_eq!(answer.body, alone, "a suspended call computed something else");
        }
    }
}
