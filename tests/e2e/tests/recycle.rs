//! A worker that is replaced since too much has stayed in its memory ends what it has begun, for whomever.

use std::time::{Duration, Instant};

use microfaas_e2e::versions::{numbered, numbered_answer, numbered_name, pinned, put};
use microfaas_e2e::{Watchdog, probe, program};
use microfaas_node::{FunctionConfig, Limits, Loading, Node, Request, RestartCause, Status};

const BALLAST: u64 = 60 << 20;

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn call(node: &Node, number: u32) {
    let answer = node.call(numbered_name(number).as_str(), b"".as_slice());
    assert_eq!((answer.status, &*answer.detail), (Status::Ok, ""));
    assert_eq!(answer.body, numbered_answer(number).as_bytes());
}

#[test]
fn calls_of_attached_hosts_outlive_the_replacement_of_their_worker() {
    let _watchdog = Watchdog::new(Duration::from_secs(300));
    let directory = tempfile::tempdir().unwrap();
    for number in 0..6 {
        let image = pinned(numbered(number), BALLAST);
        put(directory.path(), &format!("{}.so", numbered_name(number)), &image);
    }
    let socket = directory.path().join("socket");
    let limits = Limits { budget_ns: 60_000_000_000, ..Limits::default() };
    let spins =
        FunctionConfig::default().load(Loading::Start).limits(limits).deadline(Duration::from_secs(120));
    let node = Node::builder()
        .modules(directory.path())
        .module(probe())
        .worker_binary(program("microfaas-worker"))
        .workers(1)
        .pin(false)
        .modules_max(2)
        .load_default(Loading::FirstCall)
        .function("sleep_spin", spins)
        .socket(&socket)
        .start()
        .unwrap();
    let host = Node::connect(&socket).unwrap();
    let first = node.workers()[0].pid;
    let long: Vec<_> = (0..2).map(|_| host.submit("sleep_spin", Request::new(b"4000000")).unwrap()).collect();
    // One of them is unloaded for the next, and stays: the fifth is one too many.
    (0..6).for_each(|number| call(&node, number));
    // Who comes now is served by the next worker, if not by this one.
    let late = host.submit("echo", Request::new(b"late")).unwrap();
    call(&node, 0);
    for call in long {
        let answer = call.wait();
        assert_eq!((answer.status, &*answer.detail), (Status::Ok, ""), "it had started");
    }
    assert_eq!(late.wait().into_result().unwrap().body, b"late");
    until("another worker", || node.workers()[0].pid.is_some_and(|pid| Some(pid) != first));
    let causes = RestartCause::ALL.into_iter().zip(node.metrics().workers[0].restarts);
    assert_eq!(causes.filter(|(_, times)| *times > 0).collect::<Vec<_>>(), [(RestartCause::Stayed, 1)]);
    assert_eq!(host.stats().completed(Status::WorkerLost), 0);
}
