//! Calls that are stopped among others, suspended ones, faults and functions with a memory of their own: nobody notices. By the hundred thousand:
//! `endurance.rs`.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use microfaas_e2e::Watchdog;
use microfaas_e2e::attacks;
use microfaas_node::{Completion, FunctionConfig, Limits, Node, NodeBuilder, Request, Status};

const LIMIT: Duration = Duration::from_secs(300);

static MODULES: LazyLock<PathBuf> = LazyLock::new(|| {
    let functions = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../functions"));
    let crates = ["attacks", "probe"].map(|name| functions.join(name));
    attacks::build(Path::new(env!("CARGO_TARGET_TMPDIR")), crates, "containment-modules")
});

fn limits(quantum: Duration, budget: Duration) -> Limits {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).expect("less than 500 years");
    Limits { quantum_ns: ns(quantum), budget_ns: ns(budget), ..Limits::default() }
}

fn config(quantum: Duration, budget: Duration) -> FunctionConfig {
    FunctionConfig::default().limits(limits(quantum, budget)).deadline(LIMIT)
}

fn builder() -> NodeBuilder {
    Node::builder().modules(&*MODULES).workers(1).deadline_default(LIMIT)
}

fn pid(node: &Node) -> u32 {
    let worker = node.workers()[0];
    assert_eq!((worker.generation, worker.restarts), (1, 0), "the worker was replaced");
    worker.pid.expect("a serving worker has a process")
}

const PLACES: [&str; 10] =
    ["leaf", "alloc", "format", "recurse", "clock", "copy", "panic", "state", "drop", "swallow"];

/// As programs do that wait for signals in one thread.
#[test]
fn a_worker_does_not_inherit_blocked_signals() {
    let _watchdog = Watchdog::new(LIMIT);
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    let endless = config(Duration::from_millis(1), Duration::from_millis(20));
    let node = builder().function("spin_forever", endless).start().unwrap();
    let worker = pid(&node);
    for _ in 0..3 {
        assert_eq!(node.call("spin_forever", Request::new(b"")).status, Status::Timeout);
        assert_eq!(node.call("overflow", Request::new(b"1")).status, Status::Fault);
    }
    assert_eq!(pid(&node), worker);
}

#[test]
fn suspended_calls_of_one_function_have_all_their_state_to_themselves() {
    let _watchdog = Watchdog::new(LIMIT);
    let quick = config(Duration::from_micros(20), Duration::from_secs(20));
    let node = builder().function("witness", quick.clone()).function("compute", quick).start().unwrap();
    let alone = node.invoke("compute", b"3 400000".as_slice()).unwrap().body;
    for round in 0..20 {
        let calls: Vec<_> = (0..8)
            .map(|i| {
                node.submit("witness", Request::new(format!("{} 10000", round * 8 + i).as_bytes())).unwrap()
            })
            .collect();
        let sums: Vec<_> =
            (0..3).map(|_| node.submit("compute", Request::new(b"3 400000")).unwrap()).collect();
        for (i, call) in calls.into_iter().enumerate() {
            let completion = call.wait();
            assert_eq!(completion.status, Status::Ok, "{}", completion.detail);
            let text = String::from_utf8(completion.body).unwrap();
            assert!(text.starts_with(&format!("{} ", round * 8 + i)), "{text}");
        }
        for sum in sums {
            assert_eq!(sum.wait().into_result().unwrap().body, alone, "another result when suspended");
        }
    }
    pid(&node);
}

#[test]
fn kills_among_suspended_calls_touch_nobody_else() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder()
        .function("witness", config(Duration::from_micros(20), Duration::from_secs(20)))
        .function("runaway", config(Duration::from_micros(20), Duration::from_millis(2)))
        // It touches all the memory that it can get, which may take a machine long.
        .function("oom", config(Duration::from_millis(1), Duration::from_secs(60)))
        .start()
        .unwrap();
    for round in 0..10 {
        let honest: Vec<_> = (0..5)
            .map(|i| {
                node.submit("witness", Request::new(format!("{} 5000", round * 8 + i).as_bytes())).unwrap()
            })
            .collect();
        let hostile: Vec<_> =
            PLACES.map(|place| node.submit("runaway", Request::new(place.as_bytes())).unwrap()).into();
        let faults =
            ["overflow", "abort", "oom", "panic"].map(|name| node.submit(name, Request::new(b"")).unwrap());
        for call in hostile {
            let completion = call.wait();
            assert_eq!(completion.status, Status::Timeout, "{}", completion.detail);
        }
        let faults = faults.map(|call| call.wait().status);
        assert_eq!(faults, [Status::Fault, Status::Fault, Status::Oom, Status::Panic]);
        for call in honest {
            let completion = call.wait();
            assert_eq!(completion.status, Status::Ok, "{}", completion.detail);
        }
    }
    pid(&node);
}

#[test]
fn an_abort_leaves_no_signal_blocked() {
    let _watchdog = Watchdog::new(LIMIT);
    let budget = config(Duration::from_millis(1), Duration::from_millis(5));
    let node = builder().function("runaway", budget).start().unwrap();
    for name in ["abort", "overflow", "oom", "panic"] {
        let _ = node.call(name, b"".as_slice());
        assert_eq!(node.call("runaway", b"leaf".as_slice()).status, Status::Timeout, "after {name}");
    }
    pid(&node);
}

/// The C library keeps state for these that calls would share: glibc's `abort`, continued after another call has gone through it, ends in what looks like a wild access.
#[test]
fn calls_that_are_suspended_in_the_middle_of_their_abort_end_as_the_others_do() {
    let _watchdog = Watchdog::new(LIMIT);
    let quick = config(Duration::from_micros(20), Duration::from_secs(20));
    let node = builder().function("end", quick).start().unwrap();
    for round in 0..200 {
        let code = round % 2;
        let body = |i| format!("{code} {}", 15 + (i + round) % 8);
        let calls: Vec<_> =
            (0..64).map(|i| node.submit("end", Request::new(body(i).as_bytes())).unwrap()).collect();
        for call in calls {
            let Completion { status, detail, .. } = call.wait();
            if code == 0 {
                assert_eq!((status, &*detail), (Status::Fault, "abort (SIGABRT)"));
            } else {
                assert_eq!(status, Status::Denied, "{detail}");
            }
        }
    }
    pid(&node);
}

#[test]
fn a_deadline_ends_a_call_long_before_its_quantum() {
    let _watchdog = Watchdog::new(LIMIT);
    let patient = config(LIMIT, LIMIT);
    let node = builder().function("runaway", patient).stall(LIMIT).start().unwrap();
    for millis in [1, 10, 100] {
        let request = Request::new(b"leaf").deadline(Duration::from_millis(millis));
        // On a machine that is busy a millisecond may pass before the call starts.
        let status = || node.call("runaway", request).status;
        let ended = std::iter::repeat_with(status).find(|status| *status != Status::Expired);
        assert_eq!(ended, Some(Status::Timeout));
        // The worker comes back: it was not waiting for the quantum of five minutes.
        assert_eq!(node.invoke("echo", b"next".as_slice()).unwrap().body, b"next");
    }
    pid(&node);
}

#[test]
fn a_stateful_function_keeps_its_heap_and_is_never_two_at_once() {
    let _watchdog = Watchdog::new(LIMIT);
    let quick = |stateful| {
        let limits = Limits { stateful, ..limits(Duration::from_micros(20), Duration::from_millis(500)) };
        FunctionConfig::default().limits(limits).deadline(LIMIT)
    };
    let node = builder()
        .function("remember", quick(true))
        .function("witness", quick(false))
        .function("runaway", quick(false))
        .start()
        .unwrap();
    let remember = |body: &str| {
        let completion = node.call("remember", body.as_bytes());
        assert_eq!(completion.status, Status::Ok, "{}", completion.detail);
        String::from_utf8(completion.body).unwrap()
    };
    assert_eq!(remember("a 0"), "1 a");
    // Others use the memory in which the list would be, if it were not its own.
    for place in PLACES {
        assert_eq!(node.call("witness", b"1 100".as_slice()).status, Status::Ok);
        assert_eq!(node.call("echo", place.as_bytes()).body, place.as_bytes());
    }
    assert_eq!(remember("b 0"), "2 a b");
    let calls: Vec<_> = (0..10)
        .map(|i| {
            let other = node.submit("witness", Request::new(format!("{i} 500").as_bytes())).unwrap();
            (node.submit("remember", Request::new(format!("w{i} 3000").as_bytes())).unwrap(), other)
        })
        .collect();
    for (i, (call, other)) in calls.into_iter().enumerate() {
        let completion = call.wait();
        assert_eq!(completion.status, Status::Ok, "{}", completion.detail);
        let text = String::from_utf8(completion.body).unwrap();
        assert!(text.starts_with(&format!("{} a b w0", i + 3)) && text.ends_with(&format!("w{i}")), "{text}");
        assert_eq!(other.wait().status, Status::Ok);
    }
    // A forced end takes it back to the beginning.
    assert_eq!(node.call("remember", b"x 10000000".as_slice()).status, Status::Timeout);
    assert_eq!(remember("c 0"), "1 c");
    pid(&node);
}
