//! Deploying while calls want more modules than there is room for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use microfaas_e2e::versions::{numbered, numbered_answer, numbered_name, put, write};
use microfaas_e2e::{Watchdog, program};
use microfaas_node::{FunctionConfig, Loading, Node, Status};

/// Called one after the other, round and round: each is cold again when its turn comes.
const MODULES: u32 = 160;
/// Calls on their way at any time: more than a worker wants of its node at a time.
const CALLERS: u32 = 24;

#[test]
fn a_deployment_ends_while_every_call_finds_its_module_cold() {
    let _watchdog = Watchdog::new(Duration::from_secs(300));
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), 1, '-');
    for number in 0..MODULES {
        put(directory.path(), &format!("{}.so", numbered_name(number)), &numbered(number));
    }
    let node = Node::builder()
        .modules(directory.path())
        .worker_binary(program("microfaas-worker"))
        .workers(1)
        .pin(false)
        .modules_max(2)
        .slots(128, 0)
        .load_default(Loading::FirstCall)
        .function("version", FunctionConfig::default().load(Loading::Start))
        .start()
        .unwrap();
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (node, stop, served) = (&node, &stop, &served);
        scope.spawn(move || {
            let submit = |number| node.submit(numbered_name(number).as_str(), b"".as_slice().into()).unwrap();
            let mut calls: Vec<_> = (0..CALLERS).map(|number| (number, submit(number))).collect();
            let mut next = (0..MODULES).cycle().skip(calls.len());
            while !stop.load(Ordering::Relaxed) {
                for (number, call) in &mut calls {
                    let Some(answer) = call.try_take() else { continue };
                    assert_eq!(answer.status, Status::Ok, "{number}: {}", answer.detail);
                    assert_eq!(answer.body, numbered_answer(*number).as_bytes());
                    *number = next.next().unwrap();
                    *call = submit(*number);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let start = Instant::now();
        while served.load(Ordering::Relaxed) < u64::from(CALLERS) {
            assert!(start.elapsed() < Duration::from_secs(60), "no calls are answered");
            std::thread::sleep(Duration::from_millis(2));
        }
        // Loaded by each worker, and as often unloaded.
        for number in 2..5 {
            write(directory.path(), number, '-');
            node.deploy(directory.path().join("versions.so")).unwrap();
            let answer = node.call("version", b"x".as_slice());
            assert_eq!(answer.status, Status::Ok, "{}", answer.detail);
            assert_eq!(answer.body, format!("{number:04} {number:04} x {number:04}").as_bytes());
        }
        // One that is told of, and loaded when it is called.
        put(directory.path(), "last.so", &numbered(999));
        node.deploy(directory.path().join("last.so")).unwrap();
        let before = served.load(Ordering::Relaxed);
        let start = Instant::now();
        while served.load(Ordering::Relaxed) < before + u64::from(CALLERS) {
            assert!(start.elapsed() < Duration::from_secs(60), "the calls starve instead");
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(node.stats().restarts, 0);
}
