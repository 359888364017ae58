//! What calls have used is counted: exactly, for all hosts, over the death of workers, and without belief in what a worker says of others.

use std::time::{Duration, Instant};

use microfaas_e2e::host::Host;
use microfaas_e2e::{Watchdog, hostile_node, probe_node};
use microfaas_node::{FunctionConfig, Node, Request, RestartCause, Status, Usage, WorkerState};

const LIMIT: Duration = Duration::from_secs(120);

/// A call is counted after it is answered.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn usage(node: &Node, name: &str) -> Usage {
    let metrics = node.metrics();
    metrics.functions.iter().find(|of| of.name == name).map(|of| of.total()).unwrap_or_default()
}

fn calls(node: &Node, name: &str, status: Status) -> u64 {
    usage(node, name).calls(status)
}

fn call(node: &Node, name: &str, body: &[u8]) -> Status {
    node.call(name, Request::new(body)).status
}

#[test]
fn counts_are_what_was_called() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().start().unwrap();
    assert!(node.metrics().functions.is_empty());
    let mut cpu_ns = 0;
    for n in 0..1000_u64 {
        let answer = node.call("echo", Request::new(&n.to_le_bytes()).meta(&[("a", "b")]));
        assert_eq!(answer.status, Status::Ok, "{}", answer.detail);
        cpu_ns += answer.cpu_ns;
    }
    for _ in 0..30 {
        assert_eq!(call(&node, "fail", b""), Status::Error);
    }
    for _ in 0..20 {
        assert_eq!(call(&node, "panic", b""), Status::Panic);
    }
    until("the last count", || calls(&node, "panic", Status::Panic) == 20);
    let echo = usage(&node, "echo");
    assert_eq!((echo.calls(Status::Ok), echo.calls_total()), (1000, 1000));
    assert_eq!(calls(&node, "fail", Status::Error), 30);
    // What the callers were told; a completion says at most what the call took in all.
    assert!(echo.cpu_ns >= cpu_ns && echo.cpu_ns < 2 * cpu_ns + 100_000_000, "{} for {cpu_ns}", echo.cpu_ns);
    assert!(echo.request_bytes > 8 * 1000 && echo.response_bytes >= 8 * 1000);
    for histogram in [&echo.queue, &echo.run, &echo.total] {
        assert_eq!(histogram.count(), 1000);
    }
    assert_eq!(echo.run.sum_ns, echo.cpu_ns);
    assert!(echo.total.sum_ns >= echo.queue.sum_ns && echo.total.sum_ns >= echo.run.sum_ns);
    assert!(echo.queue.sum_ns > 0, "the host says when it submits");
    let total_ns = echo.total.quantile_ns(0.5).unwrap();
    assert!((100..1_000_000_000).contains(&total_ns), "{total_ns} ns for a call");
}

#[test]
fn what_dead_workers_counted_is_kept() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().start().unwrap();
    for generation in 1..=3_u64 {
        until("a worker", || node.workers()[0].state == WorkerState::Serving);
        for _ in 0..100 {
            assert_eq!(call(&node, "echo", b"x"), Status::Ok);
        }
        until("the last count", || calls(&node, "echo", Status::Ok) == 100 * generation);
        let pid = i32::try_from(node.workers()[0].pid.unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        until("a new worker", || u64::from(node.workers()[0].generation) == generation + 1);
        assert_eq!(calls(&node, "echo", Status::Ok), 100 * generation);
    }
    let metrics = node.metrics();
    assert_eq!(metrics.workers[0].restarts[RestartCause::Died as usize], 3);
    assert_eq!(metrics.workers[0].restarts.iter().sum::<u64>(), 3);
}

#[test]
fn calls_of_a_worker_that_is_lost_are_the_hosts_to_count() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let node = builder.start().unwrap();
    assert_eq!(call(&node, "die", b""), Status::WorkerLost);
    until("the count", || calls(&node, "die", Status::WorkerLost) == 1);
    assert_eq!(usage(&node, "die").calls_total(), 1);
}

#[test]
fn what_was_taken_back_is_counted_once() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().suspended_max(0).start().unwrap();
    let long = node.submit("sleep_spin", Request::new(b"50000")).unwrap();
    let waiting = node.submit("echo", Request::new(b"x")).unwrap();
    let cancelled = u64::from(waiting.cancel());
    let late = Request::new(b"x").deadline(Duration::from_millis(1));
    let late = node.submit("echo", late).unwrap().wait().status;
    let _ = long.wait();
    assert_eq!(call(&node, "echo", b"x"), Status::Ok);
    // What its worker counts, it counts in order.
    assert_eq!(call(&node, "fail", b""), Status::Error);
    until("the last count", || calls(&node, "fail", Status::Error) == 1);
    let echo = usage(&node, "echo");
    assert_eq!(echo.calls(Status::Cancelled), cancelled);
    // On a machine that is busy the long one may be over by then. One whose caller has waited for its end in vain is its worker's to count, for what it was to it.
    if late != Status::Timeout {
        assert_eq!(echo.calls(Status::Expired), u64::from(late == Status::Expired));
    }
    assert_eq!(echo.calls_total(), 3);
}

#[test]
fn what_is_refused_is_counted_wherever_it_is_found_out() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().large_bytes(4096).start().unwrap();
    assert_eq!(call(&node, "echo", &[0; 5000]), Status::TooLarge);
    let late = Request::new(b"x").deadline(Duration::ZERO);
    assert_eq!(node.call("echo", late).status, Status::Expired);
    let prepared = node.prepare("echo", 1, 0).unwrap();
    assert!(prepared.submit(2, &[], None).is_err());
    let echo = usage(&node, "echo");
    assert_eq!((echo.calls(Status::TooLarge), echo.calls(Status::Expired), echo.calls_total()), (2, 1, 3));
}

#[test]
fn calls_of_attached_hosts_count() {
    let _watchdog = Watchdog::new(LIMIT);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let node = probe_node().socket(&path).start().unwrap();
    let host = Node::connect(&path).unwrap();
    for _ in 0..50 {
        assert_eq!(call(&host, "echo", b"from afar"), Status::Ok);
    }
    until("the last count", || calls(&node, "echo", Status::Ok) == 50);
    assert_eq!(usage(&node, "echo").total.count(), 50);
}

/// Whoever looks at the node is to see that its hosts are refused, or give up.
#[test]
fn what_attached_hosts_decide_counts_also_when_they_are_gone() {
    let _watchdog = Watchdog::new(LIMIT);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let config = FunctionConfig::default().concurrency(1);
    let node = probe_node().function("sleep_spin", config).socket(&path).start().unwrap();
    assert_eq!(node.metrics().hosts, []);
    let mut killed = Host::attach(&path).unwrap();
    killed.ask("submit sleep_spin 30000000");
    for _ in 0..3 {
        let said = killed.ask("call sleep_spin 1");
        assert!(said.starts_with("OVERLOADED "), "{said}");
    }
    let host = Node::connect(&path).unwrap();
    let late = Request::new(b"").deadline(Duration::ZERO);
    assert_eq!(host.call("echo", late).status, Status::Expired);
    let hosts = node.metrics().hosts;
    let of = |status, at: usize| hosts[at].decided[status as usize];
    assert_eq!((hosts.len(), hosts[0].pid, hosts[1].pid), (2, killed.pid(), std::process::id()));
    assert_eq!((of(Status::Overloaded, 0), of(Status::Expired, 1)), (3, 1));
    let seen = || (calls(&node, "sleep_spin", Status::Overloaded), calls(&node, "echo", Status::Expired));
    assert_eq!(seen(), (3, 1));
    killed.kill();
    until("the end of the one", || node.metrics().hosts.len() == 1);
    assert_eq!(seen(), (3, 1));
    host.shutdown(Duration::ZERO);
    until("the end of the other", || node.metrics().hosts.is_empty());
    assert_eq!(seen(), (3, 1));
    assert_eq!(node.stats().accepted(), 0, "the node has called nothing itself");
}

#[test]
fn a_worker_that_spoils_its_numbers_spoils_nothing_else() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let node = builder.start().unwrap();
    assert_eq!(node.call("attack", Request::new(b"spoil")).body, b"spoilt");
    let spoilt = usage(&node, "echo");
    assert_eq!((spoilt.calls(Status::Ok), spoilt.queue.count()), (u64::MAX, u64::MAX));
    assert!(spoilt.cpu_ns < u64::try_from(LIMIT.as_nanos()).unwrap(), "more than the worker has lived");
    let _ = spoilt.total.quantile_ns(0.99);
    assert_eq!(node.stats().completed(Status::Ok), 1, "what the host itself has counted");
    assert_eq!(call(&node, "die", b""), Status::WorkerLost);
    until("a new worker", || node.workers()[0].generation == 2);
    until("a worker", || node.workers()[0].state == WorkerState::Serving);
    assert_eq!(call(&node, "echo", b"x"), Status::Ok);
    assert_eq!(usage(&node, "echo").calls(Status::Ok), u64::MAX, "sums do not wrap");
}
