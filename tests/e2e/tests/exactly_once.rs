//! Every accepted call has exactly one completion, whatever becomes of its worker: those that had not started go elsewhere by themselves, others are run again
//! where their function says that they may be, and nothing is run twice else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use microfaas_e2e::host::at_work;
use microfaas_e2e::{LEDGER, Watchdog, breakable, hostile_node, hostile_worker, probe_node};
use microfaas_node::{
    Call, CallError, FunctionConfig, Health, Limits, Node, NodeBuilder, Request, Status, WorkerState,
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(240);
const PATIENCE: Duration = Duration::from_secs(120);

fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    // A worker that has ended by itself meanwhile is as good.
    let _ = nix::sys::signal::kill(pid, signal);
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_settled(node: &Node) -> bool {
    let _ = node.poll();
    node.stats().outstanding == 0
}

/// A node whose workers say which calls of `hang` they have begun, in a file of this directory.
fn hanging(change: impl FnOnce(NodeBuilder) -> NodeBuilder) -> (Node, TempDir) {
    let (builder, directory) = hostile_node("echo");
    let ledger = directory.path().join("ledger");
    std::fs::write(&ledger, "").expect("writing into a directory for tests");
    let node = change(builder.worker_env(LEDGER, ledger)).start().expect("honest workers come up");
    (node, directory)
}

/// A call that a worker has in its hands, and never ends, unless it is run again.
fn hang(node: &Node, directory: &TempDir) -> Call {
    let begun = || std::fs::metadata(directory.path().join("ledger")).expect("it is there").len();
    let before = begun();
    let call =
        node.submit("hang", Request::new(b"again").deadline(PATIENCE)).expect("a worker has nothing to do");
    wait_until("its start", || begun() > before);
    call
}

/// One worker, with a call in its hands that never ends.
fn stuck() -> (Node, TempDir, Call) {
    let (node, directory) = hanging(|builder| builder);
    let running = hang(&node, &directory);
    (node, directory, running)
}

fn pid(node: &Node, worker: u32) -> u32 {
    node.workers()[worker as usize].pid.expect("there is a worker")
}

fn kill(node: &Node) {
    signal(pid(node, 0), nix::sys::signal::SIGKILL);
}

#[test]
fn calls_that_never_started_are_answered_by_the_replacement_however_they_are_waited_for() {
    let _watchdog = Watchdog::new(LIMIT);
    let (node, _directory, running) = stuck();
    let request = |body| Request::new(body).deadline(PATIENCE);
    let large = vec![7; 100_000];
    let blocking = node.submit("echo", request(b"blocking")).unwrap();
    let mut polled = node.submit("echo", request(b"polled").meta(&[("x", "y")])).unwrap();
    let awaited = node.submit("echo", request(b"awaited")).unwrap();
    let late = node.submit("echo", request(&large)).unwrap();
    let dropped = node.submit("echo", request(b"dropped")).unwrap();
    let cancelled = node.submit("echo", request(b"cancelled")).unwrap();
    std::thread::scope(|scope| {
        let blocking = scope.spawn(|| blocking.wait());
        let awaited = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(awaited)
        });
        std::thread::sleep(Duration::from_millis(20));
        kill(&node);
        assert_eq!(running.wait().into_result(), Err(CallError::WorkerLost { never_started: false }));
        for (completion, body) in [(blocking, "blocking"), (awaited, "awaited")] {
            let completion = completion.join().unwrap();
            assert_eq!((completion.status, completion.body.as_slice()), (Status::Ok, body.as_bytes()));
        }
    });
    let polled = loop {
        if let Some(completion) = polled.try_take() {
            break completion;
        }
        std::thread::yield_now();
    };
    assert_eq!((polled.status, polled.body.as_slice()), (Status::Ok, b"polled".as_slice()));
    assert!(polled.meta.iter().eq([("x", "y")]), "metadata goes with the call");
    // Nobody has looked at these since they were submitted.
    assert_eq!(node.workers()[0].generation, 2);
    assert_eq!(late.wait().body, large);
    drop(dropped);
    let _ = cancelled.cancel();
    wait_until("the end of all calls", || is_settled(&node));
    let stats = node.stats();
    assert_eq!((stats.completed(Status::WorkerLost), stats.retries), (1, 0));
    assert!(stats.moves >= 4, "{stats:?}");
}

#[test]
fn a_call_that_its_owner_does_not_look_at_is_run_all_the_same() {
    let _watchdog = Watchdog::new(LIMIT);
    let (node, _directory, running) = stuck();
    let waiting = node.submit("echo", Request::new(b"x").deadline(PATIENCE)).unwrap();
    kill(&node);
    // What the replacement answers first is this call, though nobody asks for it.
    wait_until("its answer", || {
        node.poll();
        node.stats().completed(Status::Ok) == 1
    });
    assert_eq!(waiting.wait().body, b"x");
    drop(running);
}

#[test]
fn a_deadline_holds_while_no_worker_is_up() {
    let _watchdog = Watchdog::new(LIMIT);
    // The replacement waits for 100 ms.
    let (node, directory) = hanging(|builder| builder.restarts(0));
    let running = hang(&node, &directory);
    let short = node.submit("echo", Request::new(b"").deadline(Duration::from_millis(30))).unwrap();
    let long = node.submit("echo", Request::new(b"long").deadline(PATIENCE)).unwrap();
    kill(&node);
    let short = short.wait();
    assert_eq!((short.status, short.never_started), (Status::Expired, true));
    assert_eq!(long.wait().body, b"long");
    assert_eq!(running.wait().status, Status::WorkerLost);
}

#[test]
fn what_a_liar_says_of_its_calls_is_not_believed() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let node = builder.start().unwrap();
    // It begins when all of them are there.
    signal(pid(&node, 0), nix::sys::signal::SIGSTOP);
    let before = node.submit("echo", Request::new(b"").deadline(PATIENCE)).unwrap();
    let lie = node.submit("lie", Request::new(b"").deadline(PATIENCE)).unwrap();
    let behind: Vec<_> =
        (0..5).map(|_| node.submit("echo", Request::new(b"").deadline(PATIENCE)).unwrap()).collect();
    signal(pid(&node, 0), nix::sys::signal::SIGCONT);
    assert_eq!(before.wait().status, Status::Ok);
    for call in [lie].into_iter().chain(behind) {
        let completion = call.wait();
        assert_eq!((completion.status, completion.never_started), (Status::WorkerLost, false));
    }
    assert_eq!((node.stats().violations, node.stats().moves), (1, 0));
}

#[test]
fn an_idempotent_call_is_run_again_once() {
    let _watchdog = Watchdog::new(LIMIT);
    let config = FunctionConfig::default().idempotent(true);
    let (node, directory) =
        hanging(|builder| builder.function("die", config.clone()).function("hang", config));
    let deadly = node.call("die", Request::new(b"").deadline(PATIENCE));
    assert_eq!((deadly.status, deadly.never_started), (Status::WorkerLost, false));
    wait_until("a worker", || node.workers()[0].generation == 3);
    assert_eq!((node.stats().retries, node.stats().restarts), (1, 2));
    wait_until("a worker", || node.workers()[0].state == WorkerState::Serving);
    let unlucky = hang(&node, &directory);
    kill(&node);
    let unlucky = unlucky.wait();
    assert_eq!((unlucky.status, unlucky.body.as_slice()), (Status::Ok, b"again".as_slice()));
    assert_eq!(node.stats().retries, 2);
}

/// Of functions that have the core for as long as they like.
fn patient() -> Limits {
    let budget_ns = u64::try_from(PATIENCE.as_nanos()).expect("two minutes");
    Limits { budget_ns, ..Limits::default() }
}

#[test]
fn a_function_can_see_that_it_is_run_again() {
    let _watchdog = Watchdog::new(LIMIT);
    let config = FunctionConfig::default().idempotent(true).limits(patient());
    let node = probe_node().function("retried", config).start().unwrap();
    let first = node.call("retried", Request::new(b"0").deadline(PATIENCE));
    assert_eq!(first.body, b"false");
    let killed = at_work(pid(&node, 0), || {
        node.submit("retried", Request::new(b"100000000").deadline(PATIENCE)).unwrap()
    });
    kill(&node);
    assert_eq!(killed.wait().body, b"true");
}

#[test]
fn a_call_that_waits_behind_a_long_one_goes_to_a_worker_that_has_nothing_to_do() {
    let _watchdog = Watchdog::new(LIMIT);
    let (node, directory) = hanging(|builder| builder.workers(2));
    let long = hang(&node, &directory);
    assert_eq!(long.worker(), Some(0));
    // It has something to do until all of them are there.
    signal(pid(&node, 1), nix::sys::signal::SIGSTOP);
    let other = node.submit("echo", Request::new(b"").deadline(PATIENCE)).unwrap();
    assert_ne!(long.worker(), other.worker());
    let waiting: Vec<_> =
        (0..6u8).map(|i| node.submit("echo", Request::new(&[i]).deadline(PATIENCE)).unwrap()).collect();
    assert!(waiting.iter().any(|call| call.worker() == long.worker()));
    signal(pid(&node, 1), nix::sys::signal::SIGCONT);
    for (i, call) in (0..6u8).zip(waiting) {
        let completion = call.wait();
        assert_eq!((completion.status, completion.body.as_slice()), (Status::Ok, [i].as_slice()));
        assert_ne!(completion.worker, long.worker());
    }
    assert_eq!(other.wait().status, Status::Ok);
    assert!(node.stats().moves > 0);
    drop(long);
}

/// Nothing lost, nothing doubled, with a worker killed a thousand times at any moment.
#[test]
fn a_thousand_kills_under_load() {
    const KILLS: u64 = 1000;
    const CALLERS: u64 = 4;
    let watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let ledger = tempfile::NamedTempFile::new().unwrap();
    let node =
        builder.workers(2).pin(false).restarts(u32::MAX).worker_env(LEDGER, ledger.path()).start().unwrap();
    let (done, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (node, done, next) = (node.clone(), Arc::clone(&done), Arc::clone(&next));
            std::thread::spawn(move || {
                let mut outcomes = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let nonces: Vec<u64> = (0..8).map(|_| next.fetch_add(1, Ordering::Relaxed)).collect();
                    let submit = |nonce: &u64| {
                        let body = nonce.to_le_bytes();
                        let call = node.submit("echo", Request::new(&body).deadline(PATIENCE)).ok()?;
                        Some((*nonce, call))
                    };
                    let calls: Vec<_> = nonces.iter().filter_map(submit).collect();
                    if calls.is_empty() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    for (nonce, call) in calls {
                        let completion = call.wait();
                        match completion.status {
                            Status::Ok => assert_eq!(completion.body, nonce.to_le_bytes(), "a wrong answer"),
                            Status::WorkerLost => {
                                assert!(!completion.never_started, "it could have been moved")
                            }
                            other => panic!("{other}: {}", completion.detail),
                        }
                        outcomes.push((nonce, completion.status));
                    }
                }
                outcomes
            })
        })
        .collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    while node.stats().restarts < KILLS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_micros(seed % 3000));
        // The other one lives for now, so that there is always something to be killed in the middle of.
        let worker = node.workers()[usize::from(seed.is_multiple_of(2))];
        if let Some(pid) = worker.pid.filter(|_| worker.state == WorkerState::Serving) {
            signal(pid, nix::sys::signal::SIGKILL);
        }
    }
    done.store(true, Ordering::Relaxed);
    let mut outcomes = HashMap::new();
    for caller in callers {
        for (nonce, status) in caller.join().expect("a caller that found nothing wrong") {
            assert_eq!(outcomes.insert(nonce, status), None, "two outcomes");
        }
    }
    wait_until("the end of all calls", || is_settled(&node));
    let stats = node.stats();
    assert_eq!(stats.accepted(), outcomes.len() as u64, "{stats:?}");
    assert!(stats.moves > KILLS / 10, "{stats:?}");
    // Each run has left its nonce, before its answer.
    let mut runs = HashMap::<u64, u32>::new();
    for nonce in std::fs::read(ledger.path()).unwrap().chunks_exact(8) {
        *runs.entry(u64::from_le_bytes(nonce.try_into().unwrap())).or_default() += 1;
    }
    for (nonce, count) in &runs {
        assert_eq!(*count, 1, "call {nonce} was run more than once");
    }
    for (nonce, status) in &outcomes {
        assert!(*status != Status::Ok || runs.contains_key(nonce), "call {nonce} was never run");
    }
    drop(watchdog);
}

/// A stopped worker is not dead, and its calls have no deadlines that could pass.
#[test]
fn a_stopped_worker_is_replaced_and_never_answers_later() {
    let _watchdog = Watchdog::new(LIMIT);
    let config = FunctionConfig::default().deadline(Duration::MAX);
    let config = config.limits(patient());
    let builder = probe_node().heartbeat(Duration::from_secs(1)).deadline_default(Duration::MAX);
    let node = builder.function("sleep_spin", config).start().unwrap();
    let pid = pid(&node, 0);
    let running = at_work(pid, || node.submit("sleep_spin", Request::new(b"100000000")).unwrap());
    signal(pid, nix::sys::signal::Signal::SIGSTOP);
    let waiting = node.submit("echo", Request::new(b"waiting")).unwrap();
    assert_eq!(waiting.wait().body, b"waiting");
    let running = running.wait();
    assert_eq!((running.status, running.never_started), (Status::WorkerLost, false));
    signal(pid, nix::sys::signal::Signal::SIGCONT);
    assert_eq!((node.workers()[0].generation, node.stats().violations), (2, 0));
}

#[test]
fn a_worker_that_is_busy_gives_signs_of_life() {
    let _watchdog = Watchdog::new(LIMIT);
    let config = FunctionConfig::default().limits(patient());
    let node = probe_node().heartbeat(Duration::from_secs(1)).function("sleep_spin", config).start().unwrap();
    let busy = node.submit("sleep_spin", Request::new(b"3500000").deadline(PATIENCE)).unwrap();
    assert_eq!(busy.wait().status, Status::Ok);
    assert_eq!(node.stats().restarts, 0);
}

#[test]
fn what_is_degraded_says_so_and_heals() {
    let _watchdog = Watchdog::new(LIMIT);
    let (builder, directory) = hostile_node("echo");
    let (program, broken) = breakable(&hostile_worker(), directory.path());
    let node = builder.worker_binary(program).workers(2).restarts(0).start().unwrap();
    assert_eq!(node.health(), Health::Up);
    std::fs::write(&broken, "").unwrap();
    kill(&node);
    wait_until("a worker that waits", || node.workers()[0].state == WorkerState::BackingOff);
    assert_eq!(node.health(), Health::Degraded { up: 1, workers: 2 });
    assert_eq!(node.call("echo", b"x".as_slice()).worker, Some(1));
    signal(pid(&node, 1), nix::sys::signal::SIGKILL);
    wait_until("both to be gone", || node.health() == Health::Down);
    std::fs::remove_file(&broken).unwrap();
    wait_until("all to be well", || node.health() == Health::Up);
    assert_eq!(node.call("echo", b"x".as_slice()).status, Status::Ok);
}
