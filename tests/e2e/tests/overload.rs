//! More than a node can do: what is too much is refused at once, with a hint when to come back, and nobody pays for another's flood.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use microfaas_e2e::gate::Gate;
use microfaas_e2e::{LEDGER, Watchdog, hostile_node, probe_node};
use microfaas_node::{Call, CallError, Completion, FunctionConfig, Node, Request, Scarce, Status};

const LIMIT: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(100);

fn submit(node: &Node, function: &str, body: &[u8]) -> Result<Call, CallError> {
    node.submit(function, Request::new(body).deadline(PATIENCE))
}

fn refusal(result: Result<Call, CallError>) -> Scarce {
    match result {
        Err(CallError::Overloaded { about, retry_after }) => {
            assert!(
                (Duration::from_millis(1)..=Duration::from_secs(10)).contains(&retry_after),
                "{retry_after:?}"
            );
            about
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted"),
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_function_has_as_many_calls_as_its_limit_says() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let config = FunctionConfig::default().concurrency(2);
    let node = builder.function("echo", config.clone()).function("die", config).start().unwrap();
    let gate = Gate::new();
    let blocker = submit(&node, "gate", gate.body()).unwrap();
    let first = submit(&node, "echo", b"1").unwrap();
    let second = submit(&node, "echo", b"2").unwrap();
    assert_eq!(refusal(submit(&node, "echo", b"3")), Scarce::Concurrency);
    assert_eq!(node.call("echo", b"3".as_slice()).status, Status::Overloaded);
    let other = submit(&node, "count", b"").unwrap();
    gate.open();
    assert_eq!((first.wait().status, second.wait().status), (Status::Ok, Status::Ok));
    assert_eq!((other.wait().status, blocker.wait().status), (Status::Ok, Status::Ok));
    // However they end: answered, dropped, given back unused, lost with their worker, moved to another.
    for round in 0..4u8 {
        assert_eq!(submit(&node, "echo", &[round]).unwrap().wait().status, Status::Ok);
        drop(submit(&node, "echo", b"").unwrap());
        drop(node.prepare("echo", 1, 0).unwrap());
        wait_until("a slot", || node.poll() == 0 && node.stats().outstanding == 0);
    }
    for _ in 0..3 {
        let deadly = submit(&node, "die", b"").unwrap();
        let moved: Vec<_> = (0..2).filter_map(|_| submit(&node, "echo", b"").ok()).collect();
        assert_eq!(deadly.wait().status, Status::WorkerLost);
        assert!(moved.into_iter().all(|call| call.wait().status == Status::Ok));
        wait_until("a worker", || submit(&node, "echo", b"").is_ok());
    }
    wait_until("the end of all calls", || node.poll() == 0 && node.stats().outstanding == 0);
    let both = [submit(&node, "echo", b"1").unwrap(), submit(&node, "echo", b"2").unwrap()];
    assert!(both.into_iter().all(|call| call.wait().status == Status::Ok));
}

/// Others that come back all the time say nothing of when a function with a limit may have another call.
#[test]
fn the_hint_of_a_function_with_a_limit_is_of_its_own_calls() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let config = FunctionConfig::default().concurrency(1);
    let builder = builder.workers(2).pin(false).heartbeat(Duration::MAX);
    let node = builder.function("sleep", config).start().unwrap();
    let long = submit(&node, "sleep", b"60000").unwrap();
    let quick = node.workers().iter().map(|of| of.index).find(|of| Some(*of) != long.worker()).unwrap();
    wait_until("a hint that is as long as it has taken so far", || {
        let beside = submit(&node, "echo", b"").unwrap();
        if beside.worker() == Some(quick) {
            assert_eq!(beside.wait().status, Status::Ok);
        }
        let Err(CallError::Overloaded { about: Scarce::Concurrency, retry_after }) =
            submit(&node, "sleep", b"1")
        else {
            panic!("there is one on its way");
        };
        retry_after >= Duration::from_millis(200)
    });
}

#[test]
fn one_flooded_function_does_not_take_the_slots_of_the_others() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let node = builder.slots(32, 0).start().unwrap();
    let (gate, mut flood) = (Gate::new(), Vec::new());
    let about = loop {
        match submit(&node, "gate", gate.body()) {
            Ok(call) => flood.push(call),
            refused => break refusal(refused),
        }
    };
    assert_eq!((about, flood.len()), (Scarce::Share, 28));
    let others: Vec<_> = (0..3).map(|_| submit(&node, "echo", b"").expect("a slot that was kept")).collect();
    gate.open();
    assert!(others.into_iter().all(|call| call.wait().status == Status::Ok));
    assert!(flood.into_iter().all(|call| call.wait().status == Status::Ok));
}

/// Ten times of what the node can do from one side, and somebody else who asks for little.
#[test]
fn a_flood_is_refused_and_the_rest_is_served() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let node = builder.slots(32, 0).start().unwrap();
    let (done, flooded) = (AtomicBool::new(false), AtomicBool::new(false));
    let (accepted, refused) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let (mut calls, mut accepted, mut refused) = (Vec::new(), 0u64, 0u64);
            while !done.load(Ordering::Relaxed) {
                match submit(&node, "sleep", b"1") {
                    Ok(call) => calls.push(call),
                    Err(CallError::Overloaded { .. }) => {
                        refused += 1;
                        flooded.store(true, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error}"),
                }
                calls.retain_mut(|call| {
                    let completion = call.try_take();
                    accepted += u64::from(completion.is_some());
                    completion.is_none_or(|completion| completion.status != Status::Ok)
                });
            }
            accepted += calls.len() as u64;
            calls.into_iter().for_each(|call| assert_eq!(call.wait().status, Status::Ok));
            (accepted, refused)
        });
        wait_until("a flood", || flooded.load(Ordering::Relaxed));
        for i in 0..200u8 {
            let completion = submit(&node, "echo", &[i]).expect("there is room for others").wait();
            assert_eq!((completion.status, completion.body.as_slice()), (Status::Ok, [i].as_slice()));
        }
        done.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    assert!(refused > 0, "that was no flood");
    wait_until("the end of all calls", || node.poll() == 0 && node.stats().outstanding == 0);
    assert_eq!(node.stats().accepted(), accepted + 200);
    // As before.
    assert_eq!(node.call("echo", b"after".as_slice()).body, b"after");
}

/// What was taken back, or came too late, costs its worker nothing.
#[test]
fn cancelled_and_expired_calls_are_never_run() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let ledger = tempfile::NamedTempFile::new().unwrap();
    let node = builder.worker_env(LEDGER, ledger.path()).start().unwrap();
    let gate = Gate::new();
    let busy = submit(&node, "gate", gate.body()).unwrap();
    let cancelled = submit(&node, "echo", b"cancelled ").unwrap();
    let dropped = submit(&node, "echo", b"dropped ").unwrap();
    let late = Request::new(b"expired ").deadline(Duration::from_millis(20));
    let expired = node.submit("echo", late).unwrap();
    let wanted = submit(&node, "echo", b"wanted ").unwrap();
    assert!(cancelled.cancel(), "it had not started");
    drop(dropped);
    let expired = expired.wait();
    assert_eq!((expired.status, expired.never_started), (Status::Expired, true));
    gate.open();
    assert_eq!((busy.wait().status, wanted.wait().status), (Status::Ok, Status::Ok));
    wait_until("the end of all calls", || node.poll() == 0 && node.stats().outstanding == 0);
    assert_eq!(std::fs::read(ledger.path()).unwrap(), b"wanted ");
}

/// Lanes take turns, also where a worker can start a call only when another has ended.
#[test]
fn a_host_that_floods_a_worker_does_not_keep_it_from_another_host() {
    const FLOOD: usize = 100;
    /// Some 20 ms.
    const ROUNDS: &[u8] = b"8000000";
    /// When a call was done, as it says, by the system's clock.
    fn done(completion: &Completion) -> u128 {
        assert_eq!(completion.status, Status::Ok, "{}", completion.detail);
        str::from_utf8(&completion.body).unwrap().parse().unwrap()
    }
    let _watchdog = Watchdog::new(LIMIT);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let node = probe_node().suspended_max(1).socket(&socket).start().unwrap();
    let host = Node::connect(&socket).unwrap();
    for (floods, asks) in [(&node, &host), (&host, &node)] {
        loop {
            let flood: Vec<_> = (0..FLOOD).map(|_| submit(floods, "work_a", ROUNDS).unwrap()).collect();
            let asked = submit(asks, "work_b", b"1").unwrap();
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
            let answered = done(&asked.wait());
            let ends: Vec<u128> = flood.into_iter().map(|call| done(&call.wait())).collect();
            let waited_for = ends.iter().filter(|end| (since..answered).contains(*end)).count();
            assert!(waited_for < FLOOD / 10, "it waited for {waited_for} of {FLOOD} calls");
            // Unless this thread stood still for so long that there was no flood any more, or the answer is older.
            if since < answered && ends.iter().filter(|end| answered < **end).count() > FLOOD / 2 {
                break;
            }
        }
    }
}
