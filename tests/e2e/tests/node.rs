//! What a node promises its callers, with real worker processes that behave as the test needs.

use std::collections::HashSet;
use std::time::Duration;

use microfaas_e2e::gate::Gate;
use microfaas_e2e::{Watchdog, hostile_node};
use microfaas_node::{CallError, Completion, FunctionConfig, Node, Request, Status, WorkerState};

const LIMIT: Duration = Duration::from_secs(150);

fn start() -> (Node, tempfile::TempDir, Watchdog) {
    let watchdog = Watchdog::new(LIMIT);
    let (builder, directory) = hostile_node("echo");
    (builder.start().expect("an honest worker comes up"), directory, watchdog)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn serves_again(node: &Node) -> bool {
    let worker = node.workers()[0];
    worker.generation == 2 && worker.state == WorkerState::Serving
}

fn process_exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_call_comes_back_with_body_and_metadata() {
    let (node, _directory, _watchdog) = start();
    let meta = [(":path", "/a"), ("x", "")];
    for len in [0, 1, 64, 4096, 4097, 100_000] {
        let body = vec![7; len];
        let completion = node.call("echo", Request::new(&body).meta(&meta));
        assert_eq!(completion.status, Status::Ok, "{len} bytes: {}", completion.detail);
        assert_eq!(completion.body, body);
        assert!(completion.meta.iter().eq(meta));
        assert_eq!(completion.worker, Some(0));
        assert!(completion.total_ns > 0);
    }
    assert_eq!(node.invoke("echo", b"hello".as_slice()).unwrap().body, b"hello");
}

#[test]
fn each_way_to_end_has_its_error() {
    let (node, _directory, _watchdog) = start();
    let error = |name, body: &[u8]| node.invoke(name, body).unwrap_err();
    assert_eq!(error("nothing", b""), CallError::UnknownFunction);
    assert_eq!(error("error", b""), CallError::Function { message: "bad input".into() });
    assert_eq!(error("panic", b""), CallError::Panic { message: "at the disco  [31m".into() });
    assert_eq!(error("big", b"16777217"), CallError::ResponseTooLarge);
    let refused = node.call("bad-meta", b"".as_slice());
    assert_eq!((refused.status, refused.detail.as_ref()), (Status::Error, "invalid response metadata"));
    assert!(refused.body.is_empty() && refused.meta.is_empty());
    let max = 16 << 20;
    assert_eq!(error("echo", &vec![0; max + 1]), CallError::TooLarge { len: max + 1, max });
    let bad = [("Upper", "v")];
    assert!(matches!(node.submit("echo", Request::new(b"").meta(&bad)), Err(CallError::Metadata(_))));
    let late = Request::new(b"").deadline(Duration::ZERO);
    assert!(matches!(node.submit("echo", late), Err(CallError::Expired)));
    // All slots are as they were.
    assert_eq!(node.stats().outstanding, 0);
}

#[test]
fn what_a_worker_says_of_its_time_is_capped() {
    let (node, _directory, _watchdog) = start();
    let completion = node.call("cpu", b"".as_slice());
    assert_eq!(completion.status, Status::Ok);
    assert_eq!(completion.cpu_ns, completion.total_ns);
    assert_eq!(completion.meta.get(":status"), Some("201"));
}

#[test]
fn a_dead_worker_is_replaced_and_its_calls_are_answered() {
    let (node, _directory, _watchdog) = start();
    let pid = node.workers()[0].pid.unwrap();
    let running = node.submit("die", Request::default()).unwrap();
    let waiting: Vec<_> = (0..10).filter_map(|_| node.submit("echo", Request::default()).ok()).collect();
    assert_eq!(running.wait().into_result(), Err(CallError::WorkerLost { never_started: false }));
    for call in waiting {
        assert_eq!(call.wait().status, Status::Ok, "it had not started, so the replacement has it");
    }
    wait_until("a replacement", || serves_again(&node));
    let worker = node.workers()[0];
    assert_ne!(worker.pid, Some(pid));
    assert_eq!((worker.generation, worker.restarts), (2, 1));
    wait_until("the end of the dead one", || !process_exists(pid));
    assert_eq!(node.invoke("echo", b"again".as_slice()).unwrap().body, b"again");
}

#[test]
fn a_lie_costs_the_worker_its_life() {
    let (node, _directory, _watchdog) = start();
    let pid = node.workers()[0].pid.unwrap();
    let error = node.invoke("lie", b"".as_slice()).unwrap_err();
    assert_eq!(error, CallError::WorkerLost { never_started: false });
    wait_until("the end of the liar", || !process_exists(pid));
    wait_until("a replacement", || serves_again(&node));
    assert_eq!(node.invoke("echo", b"again".as_slice()).unwrap().body, b"again");
    let stats = node.stats();
    assert_eq!((stats.violations, stats.restarts), (1, 1));
    assert!(stats.last_violation.is_some());
}

#[test]
fn deadlines_pass_in_the_queue_and_in_the_call() {
    let (node, _directory, _watchdog) = start();
    let (gate, short) = (Gate::new(), Duration::from_millis(20));
    let mut late = 0;
    let running = loop {
        let running = node.submit("gate", Request::new(gate.body()).deadline(short)).unwrap().wait();
        if running.status != Status::Expired {
            break running;
        }
        // On a machine that is busy so much time may pass before it starts.
        assert!(running.never_started);
        late += 1;
    };
    assert_eq!((running.status, running.never_started), (Status::Timeout, false));
    assert!(running.total_ns >= 20_000_000);
    let queued = node.submit("echo", Request::new(b"").deadline(short)).unwrap().wait();
    assert_eq!((queued.status, queued.never_started), (Status::Expired, true));
    gate.open();
    // Their slots come back when the worker is done with them.
    assert_eq!(node.invoke("echo", b"after".as_slice()).unwrap().body, b"after");
    wait_until("all slots", || node.poll() == 0 && node.stats().outstanding == 0);
    assert_eq!(node.stats().abandoned, 2 + late);
}

#[test]
fn a_hung_worker_is_replaced() {
    let watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let config = FunctionConfig::default().deadline(Duration::from_millis(30));
    let node = builder.function("hang", config).stall(Duration::from_millis(50)).start().unwrap();
    let pid = node.workers()[0].pid.unwrap();
    // On a machine that is busy its time may be up before it starts.
    let hang = || node.invoke("hang", b"".as_slice()).unwrap_err();
    let error = std::iter::repeat_with(hang).find(|error| *error != CallError::Expired);
    assert_eq!(error, Some(CallError::Timeout));
    let behind = node.call("echo", Request::new(b"").deadline(LIMIT));
    assert_eq!(behind.status, Status::Ok, "{}", behind.detail);
    wait_until("the end of the one that hangs", || !process_exists(pid));
    wait_until("a replacement", || node.workers()[0].state == WorkerState::Serving);
    assert_ne!(node.workers()[0].pid, Some(pid));
    assert_eq!(node.invoke("echo", b"again".as_slice()).unwrap().body, b"again");
    drop(watchdog);
}

#[test]
fn a_worker_that_is_busy_with_another_call_is_not_taken_for_hung() {
    let watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let node = builder.stall(Duration::from_millis(50)).start().unwrap();
    let gate = Gate::new();
    let long = node.submit("gate", Request::new(gate.body()).deadline(LIMIT)).unwrap();
    gate.wait();
    let queued = node.submit("echo", Request::new(b"").deadline(Duration::from_millis(20))).unwrap();
    assert_eq!(queued.wait().status, Status::Expired);
    // Far more than the grace of one that hangs.
    std::thread::sleep(Duration::from_millis(400));
    gate.open();
    assert_eq!(long.wait().status, Status::Ok);
    assert_eq!(node.stats().restarts, 0);
    drop(watchdog);
}

#[test]
fn a_cancelled_call_that_has_not_started_never_does() {
    let (node, _directory, _watchdog) = start();
    let gate = Gate::new();
    let running = node.submit("gate", Request::new(gate.body())).unwrap();
    let queued: Vec<_> = (0..5).map(|_| node.submit("echo", Request::default()).unwrap()).collect();
    for call in queued {
        assert!(call.cancel());
    }
    drop(node.submit("echo", Request::default()).unwrap());
    gate.open();
    assert_eq!(running.wait().status, Status::Ok);
    // The worker has looked at all of them, in order.
    assert_eq!(node.invoke("echo", b"".as_slice()).unwrap().body, b"");
    assert_eq!(node.stats().abandoned, 6);
    assert_eq!(node.stats().outstanding, 0);
}

#[test]
fn slots_run_out_with_an_error_and_come_back() {
    let watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let node = builder.slots(4, 1).start().unwrap();
    let gate = Gate::new();
    let running = node.submit("gate", Request::new(gate.body())).unwrap();
    let queued: Vec<_> = (0..3).map(|_| node.submit("echo", Request::default()).unwrap()).collect();
    assert!(matches!(node.submit("echo", Request::default()), Err(CallError::Overloaded { .. })));
    // A prepared slot counts, too, and a dropped one does not.
    let large = node.prepare("echo", 5000, 0).unwrap();
    assert!(matches!(node.prepare("echo", 5000, 0), Err(CallError::Overloaded { .. })));
    drop(large);
    assert!(node.prepare("echo", 5000, 0).is_ok());
    gate.open();
    assert!(queued.into_iter().all(|call| call.wait().status == Status::Ok));
    assert_eq!(running.wait().status, Status::Ok);
    assert!(node.invoke("echo", b"".as_slice()).is_ok());
    drop(watchdog);
}

#[test]
fn a_request_can_be_written_in_place() {
    let (node, _directory, _watchdog) = start();
    let echo = node.function("echo").unwrap();
    let mut prepared = node.prepare(echo, 10, 64).unwrap();
    prepared.buffer().copy_from_slice(b"0123456789");
    let call = prepared.submit(4, &[("a", "b")], None).unwrap();
    let mut completion = Completion::default();
    call.wait_into(&mut completion);
    assert_eq!((completion.body.as_slice(), completion.meta.get("a")), (b"0123".as_slice(), Some("b")));
    let too_long = node.prepare(echo, 10, 0).unwrap();
    assert!(matches!(too_long.submit(11, &[], None), Err(CallError::TooLarge { len: 11, max: 10 })));
    assert_eq!(node.stats().outstanding, 0);
}

#[test]
fn many_threads_get_their_own_answers() {
    let watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let node = builder.workers(2).start().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let node = &node;
            scope.spawn(move || {
                let echo = node.function("echo").unwrap();
                let mut completion = Completion::default();
                for i in 0..500u32 {
                    let body = [thread.to_le_bytes(), i.to_le_bytes()].concat();
                    node.submit(echo, Request::new(&body)).unwrap().wait_into(&mut completion);
                    assert_eq!((completion.status, &completion.body), (Status::Ok, &body));
                }
            });
        }
    });
    assert_eq!(node.stats().completed(Status::Ok), 4000);
    assert_eq!(node.stats().accepted(), 4000);
    drop(watchdog);
}

#[test]
fn calls_go_to_the_least_busy_worker() {
    let watchdog = Watchdog::new(LIMIT);
    let (builder, _directory) = hostile_node("echo");
    let node = builder.workers(3).start().unwrap();
    let gate = Gate::new();
    let calls: Vec<_> = (0..3).map(|_| node.submit("gate", Request::new(gate.body())).unwrap()).collect();
    let workers: HashSet<_> = calls.iter().map(|call| call.worker()).collect();
    assert_eq!(workers.len(), 3);
    gate.open();
    assert!(calls.into_iter().all(|call| call.wait().status == Status::Ok));
    drop(watchdog);
}

#[test]
fn shutting_down_finishes_what_runs_and_cancels_the_rest() {
    let (node, _directory, _watchdog) = start();
    let pid = node.workers()[0].pid.unwrap();
    let quick = node.submit("sleep", Request::new(b"50")).unwrap();
    node.shutdown(LIMIT);
    assert_eq!(quick.wait().status, Status::Ok);
    assert!(!process_exists(pid));
    assert_eq!(node.workers()[0].state, WorkerState::Stopped);
    assert!(matches!(node.submit("echo", Request::default()), Err(CallError::Closed)));

    let (node, _directory, _watchdog) = start();
    let slow = node.submit("sleep", Request::new(b"60000")).unwrap();
    drop(node);
    assert_eq!(slow.wait().status, Status::Cancelled);
}

#[test]
fn an_event_loop_is_woken_by_one_descriptor() {
    let (node, _directory, _watchdog) = start();
    let mut call = node.submit("sleep", Request::new(b"30")).unwrap();
    loop {
        if node.arm() {
            assert!(microfaas_sys::poll::is_readable(node.event_fd(), Some(LIMIT)).unwrap(), "never woken");
        }
        node.disarm();
        node.poll();
        if let Some(completion) = call.try_take() {
            assert_eq!(completion.status, Status::Ok);
            break;
        }
    }
    assert!(call.try_take().is_none());
}

#[test]
fn futures_are_driven_on_any_runtime() {
    let (node, _directory, _watchdog) = start();
    for threads in [1, 2, 1] {
        let runtime = if threads == 1 {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
        } else {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
        };
        runtime.block_on(async {
            let calls: Vec<_> = (0..20).map(|_| node.submit("sleep", Request::new(b"1")).unwrap()).collect();
            for call in calls {
                assert_eq!(call.await.status, Status::Ok);
            }
            let gate = Gate::new();
            let request = Request::new(gate.body()).deadline(Duration::from_millis(20));
            let mut late = Err(CallError::Expired);
            // On a machine that is busy its time may be up before it starts.
            while late == Err(CallError::Expired) {
                late = node.invoke_async("gate", request).await;
            }
            assert_eq!(late, Err(CallError::Timeout));
            gate.open();
            let lost = node.submit("sleep", Request::new(b"1")).unwrap();
            assert_eq!(lost.await.status, Status::Ok);
        });
    }
}

#[test]
fn memory_of_large_calls_is_given_back() {
    let (node, _directory, _watchdog) = start();
    let committed = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssShmem:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = committed();
    let body = vec![1; 8 << 20];
    assert_eq!(node.invoke("echo", body.as_slice()).unwrap().body, body);
    assert!(committed() < before + 1024, "{before} KiB before, {} KiB after", committed());
}

/// An event loop that sleeps has announced that to the workers that there were, not to one that has come since.
#[test]
fn an_event_loop_that_sleeps_is_told_of_a_new_worker() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let (node, _directory, _watchdog) = start();
    let is_readable = || {
        let mut fds = [PollFd::new(node.event_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    node.disarm();
    assert!(node.arm() && !is_readable(), "there is nothing to do");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(node.workers()[0].pid.unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("a new worker", || serves_again(&node));
    assert!(is_readable(), "it would sleep through what the new worker answers");
}
