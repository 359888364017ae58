//! Calls that are stopped at every place where it could hurt, a hundred thousand in a row on one worker, which goes on as if nothing had happened.
//!
//! `MICROFAAS_KILLS` asks for another number. Needs the worker's program: `cargo build -p microfaas-worker`.

use std::path::Path;
use std::time::Duration;

use microfaas_e2e::Watchdog;
use microfaas_e2e::attacks::{self, Footprint};
use microfaas_node::{FunctionConfig, Limits, Node, Policy, Status};

const LIMIT: Duration = Duration::from_secs(1200);
const KILLS: usize = 100_000;

/// Where the calls are when they are stopped: a tight loop, the allocator, a formatter that holds a lock, deep recursion, `clock_gettime`, `memcpy`; the
/// unwinder, thread-locals, a destructor, and a function that catches what safe points throw.
const PLACES: [&str; 10] =
    ["leaf", "alloc", "format", "recurse", "clock", "copy", "panic", "state", "drop", "swallow"];
/// The same function with both policies.
const NAMES: [(&str, Policy); 2] = [("runaway", Policy::Share), ("runaway_too", Policy::Kill)];
/// What a worker may grow by over all: the first calls touch what later ones use again.
const GROWTH_BYTES_MAX: u64 = 1 << 20;

fn start() -> Node {
    let functions = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../functions"));
    let crates = ["attacks", "probe"].map(|name| functions.join(name));
    let modules = attacks::build(Path::new(env!("CARGO_TARGET_TMPDIR")), crates, "containment-modules");
    let builder = Node::builder().modules(modules).workers(1).deadline_default(LIMIT);
    let builder = NAMES.iter().fold(builder, |builder, (name, policy)| {
        // The shortest that there are. Under `share` a second slice follows the first, so that there is a call to resume, too.
        let limits = Limits { quantum_ns: 20_000, budget_ns: 40_000, policy: *policy, ..Limits::default() };
        builder.function(*name, FunctionConfig::default().limits(limits))
    });
    builder.spares(0).start().expect("a node with one worker")
}

fn kill(node: &Node, name: &str, place: &str) {
    let completion = node.call(name, place.as_bytes());
    // Not at a safe point: forced.
    let end = (completion.status, &*completion.detail);
    assert_eq!(end, (Status::Timeout, "budget spent"), "{name} {place}");
}

/// Honest calls that notice whatever a killed one has left.
fn check(node: &Node, round: usize) {
    let body = round.to_le_bytes();
    let next = node.call("echo", body.as_slice());
    assert_eq!((next.status, next.body.as_slice()), (Status::Ok, body.as_slice()), "{}", next.detail);
    let next = node.call("witness", format!("{round} 0").as_bytes());
    assert_eq!(next.status, Status::Ok, "{}", next.detail);
    assert_eq!(node.call("panic", b"text".as_slice()).status, Status::Panic);
}

#[test]
fn one_worker_outlives_a_hundred_thousand_kills() {
    let _watchdog = Watchdog::new(LIMIT);
    let kills = std::env::var("MICROFAAS_KILLS").ok().map_or(KILLS, |text| text.parse().unwrap());
    let node = start();
    let worker = node.workers()[0];
    let look = || (Footprint::of(worker.pid.unwrap()), Footprint::of(std::process::id()).descriptors);
    // What is needed once is there afterwards.
    for (name, _) in NAMES {
        PLACES.iter().for_each(|place| (0..20).for_each(|_| kill(&node, name, place)));
    }
    let (before, host_before) = look();
    let mut done = 0;
    for round in 0.. {
        for (name, _) in NAMES {
            for place in PLACES {
                kill(&node, name, place);
                done += 1;
            }
        }
        check(&node, round);
        if round % 500 == 0 || done >= kills {
            let (after, host_after) = look();
            assert!(
                after.resident <= before.resident + GROWTH_BYTES_MAX,
                "{before:?}, after {done} kills {after:?}"
            );
            assert_eq!((after.descriptors, after.threads), (before.descriptors, 1), "after {done} kills");
            assert_eq!(host_after, host_before, "the host's descriptors after {done} kills");
        }
        if done >= kills {
            break;
        }
    }
    let now = node.workers()[0];
    assert_eq!((now.generation, now.restarts, now.pid), (1, 0, worker.pid), "the worker was replaced");
    assert_eq!(node.stats().completed(Status::Timeout), (done + NAMES.len() * PLACES.len() * 20) as u64);
    assert_eq!(node.stats().outstanding, 0);
}
