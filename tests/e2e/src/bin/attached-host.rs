//! An honest host in a process of its own: attaches to the socket that is its argument, and does what it is told by lines on its standard input.
//!
//! | line | does | answers |
//! | --- | --- | --- |
//! | `call FUNCTION BODY` | a call | `STATUS WORKER DETAIL-OR-BODY` |
//! | `submit FUNCTION BODY` | a call, not waited for | `submitted` |
//! | `wait` | waits for all of those | `STATUS DETAIL` of each, separated by `;` |
//! | `load MILLISECONDS` | four threads call `echo` and check every answer | `accepted N ok N lost N wrong N` |
//! | `no-descriptors` | may open no descriptor more | `so be it` |
//! | `descriptors` | may open some again | `so be it` |
//! | `sizes` | calls with bodies and answers of many sizes, with metadata | `right` |
#![expect(clippy::print_stdout, reason = "answers whoever started it")]

use std::io::BufRead;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use microfaas_node::{Call, CallError, Completion, Node, Request, Status};

/// A call that needs its deadline to end was lost.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let socket = std::env::args().nth(1).expect("the socket is the argument");
    let node = match Node::connect(socket) {
        Ok(node) => node,
        Err(error) => {
            println!("{error}");
            std::process::exit(1);
        }
    };
    println!("attached");
    let mut calls = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("lines of text");
        let mut words = line.splitn(3, ' ');
        let answer = match (words.next(), words.next(), words.next().unwrap_or_default()) {
            (Some("call"), Some(function), body) => {
                let answer = node.call(function, Request::new(body.as_bytes()).deadline(PATIENCE));
                let worker = answer.worker.map_or(-1, i64::from);
                format!("{} {worker} {}", answer.status, text(&answer))
            }
            (Some("submit"), Some(function), body) => {
                calls.push(node.submit(function, Request::new(body.as_bytes()).deadline(PATIENCE)));
                "submitted".to_owned()
            }
            (Some("wait"), ..) => calls.drain(..).map(outcome).collect::<Vec<_>>().join(";"),
            (Some("load"), Some(time), _) => load(&node, time.parse().expect("milliseconds")),
            (Some("sizes"), ..) => sizes(&node),
            (Some("no-descriptors"), ..) => limit_descriptors(3),
            (Some("descriptors"), ..) => limit_descriptors(1024),
            _ => panic!("what is `{line}`?"),
        };
        println!("{answer}");
    }
}

/// New descriptors get numbers below this one; those that are open stay. No more than this can be polled at a time.
fn limit_descriptors(count: u64) -> String {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, count, hard).expect("a soft limit can be changed");
    "so be it".to_owned()
}

fn text(answer: &Completion) -> String {
    match answer.status {
        Status::Ok => String::from_utf8_lossy(&answer.body).into_owned(),
        _ => answer.detail.clone().into_owned(),
    }
}

fn outcome(call: Result<Call, CallError>) -> String {
    let answer = call.map_or_else(|error| Completion::refused(&error), Call::wait);
    format!("{} {}", answer.status, text(&answer))
}

/// Every accepted call has one outcome: the right answer, or `WORKER_LOST`.
fn load(node: &Node, millis: u64) -> String {
    let [accepted, ok, lost, wrong] = std::array::from_fn(|_| AtomicU64::new(0));
    let end = Instant::now() + Duration::from_millis(millis);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (accepted, ok, lost, wrong) = (&accepted, &ok, &lost, &wrong);
            scope.spawn(move || {
                let mut completion = Completion::default();
                let mut calls = 0u64;
                for i in 0u64.. {
                    // One at least, however late it is by now.
                    if calls > 0 && Instant::now() >= end {
                        return;
                    }
                    let mut body = [thread, i, !i].map(u64::to_le_bytes).concat();
                    body.resize(if i.is_multiple_of(64) { 6000 } else { 24 }, body[8]);
                    match node.submit("echo", Request::new(&body).deadline(PATIENCE)) {
                        Ok(call) => call.wait_into(&mut completion),
                        Err(CallError::NoWorker | CallError::Overloaded { .. }) => {
                            std::thread::sleep(Duration::from_micros(100));
                            continue;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    calls += 1;
                    accepted.fetch_add(1, Ordering::Relaxed);
                    let count = match completion.status {
                        Status::Ok if completion.body == body => ok,
                        Status::WorkerLost => lost,
                        _ => wrong,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let [accepted, ok, lost, wrong] = [accepted, ok, lost, wrong].map(AtomicU64::into_inner);
    format!("accepted {accepted} ok {ok} lost {lost} wrong {wrong}")
}

fn sizes(node: &Node) -> String {
    for len in [0, 1, 100, 4000, 4096, 5000, 70_000, 1 << 20, 10 << 20] {
        let body: Vec<u8> = (0..len).map(|i| u8::try_from(i % 253).unwrap_or(0)).collect();
        for function in ["echo", "echo_vec"] {
            let answer = node.call(function, Request::new(&body).deadline(PATIENCE));
            if answer.status != Status::Ok || answer.body != body {
                return format!("{function} of {len} bytes: {} {}", answer.status, answer.detail);
            }
        }
        let meta = [("a", "1"), ("b", "2")];
        let answer = node.call("reverse_meta", Request::new(&body).meta(&meta).deadline(PATIENCE));
        if answer.meta.get("meta-b") != Some("2") || answer.meta.get("meta-a") != Some("1") {
            return format!("metadata beside {len} bytes: {} {}", answer.status, answer.detail);
        }
    }
    for (function, body, status) in
        [("fail", "no", Status::Error), ("panic", "no", Status::Panic), ("alloc", "300000000", Status::Oom)]
    {
        let answer = node.call(function, Request::new(body.as_bytes()).deadline(PATIENCE));
        if answer.status != status {
            return format!("{function}: {} {}", answer.status, answer.detail);
        }
    }
    "right".to_owned()
}
