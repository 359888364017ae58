//! A node that was stopped, or never came up, leaves no descriptor, mapping, thread or process. Alone in its program, so that it can count.

use std::fs;
use std::time::Duration;

use microfaas_e2e::{Watchdog, hostile_node};
use microfaas_node::Status;

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).expect("a folder of /proc").count()
}

/// Descriptors, lane mappings, children.
fn held() -> (usize, usize, String) {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is there");
    let children = fs::read_to_string("/proc/thread-self/children").expect("/proc is there");
    (entries("/proc/self/fd"), maps.matches("memfd:microfaas").count(), children)
}

#[test]
fn nothing_is_left() {
    let _watchdog = Watchdog::new(Duration::from_secs(150));
    let before = held();
    let threads = entries("/proc/self/task");
    for _ in 0..3 {
        let (builder, _directory) = hostile_node("echo");
        let node = builder.workers(2).start().unwrap();
        assert_eq!(node.call("echo", b"x".as_slice()).status, Status::Ok);
        assert_eq!(node.call("die", b"".as_slice()).status, Status::WorkerLost);
        let pids: Vec<_> = node.workers().iter().filter_map(|worker| worker.pid).collect();
        // A call that outlives its node keeps the lane's memory, and nothing else.
        let call = node.submit("sleep", b"60000".as_slice().into()).unwrap();
        drop(node);
        assert_eq!(held().1, 3);
        assert_eq!(call.wait().status, Status::Cancelled);
        for pid in pids {
            assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "process {pid} is left");
        }
        assert!(hostile_node("die").0.start().is_err());
    }
    assert_eq!(held(), before);
    // The kernel takes a joined thread off the list a moment later; the watchdog bounds the wait.
    while entries("/proc/self/task") > threads {
        std::thread::yield_now();
    }
}
