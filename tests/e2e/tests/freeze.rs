//! A node and its workers that stand still together, as in a virtual machine that is paused, and go on.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]
#![expect(clippy::print_stdout, reason = "tells the test in the other process")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use microfaas_e2e::{Watchdog, probe, probe_node};
use microfaas_node::{Request, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Tells the test below that it is to be the node.
const ROLE: &str = "MICROFAAS_TEST_IS_NODE";
/// How long a worker may be stuck. Who freezes and thaws them one after the other is not to take as long.
const STALL: Duration = Duration::from_secs(2);

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// Calls its own functions until it is told to end, and says what that has cost.
#[test]
fn be_the_node() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let _watchdog = Watchdog::new(Duration::from_secs(120));
    let node = probe_node().workers(2).pin(false).spares(0).stall(STALL).start().unwrap();
    let pids: Vec<String> = node.workers().iter().map(|worker| worker.pid.unwrap().to_string()).collect();
    let stop = AtomicBool::new(false);
    let mut orders = std::io::stdin().lines();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::new(b"200000").deadline(Duration::from_millis(800));
                    let status = node.call("sleep_spin", request).status;
                    assert!(matches!(status, Status::Ok | Status::Timeout | Status::Expired), "{status}");
                }
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        println!("\nworkers {}", pids.join(" "));
        let _ = orders.next();
        stop.store(true, Ordering::Relaxed);
    });
    println!("\nrestarts {}", node.stats().restarts);
}

#[test]
fn who_has_stood_still_judges_nobody_for_it() {
    let _watchdog = Watchdog::new(Duration::from_secs(300));
    // What has to be built takes time that the other process has not.
    let _ = probe();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "be_the_node", "--nocapture"])
        .env(ROLE, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = |word: &str| {
        let line = lines.find_map(|line| Some(line.unwrap().strip_prefix(word)?.to_owned()));
        line.expect("the other process says it")
    };
    let workers: Vec<u32> = said("workers ").split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    for _ in 0..3 {
        workers.iter().chain([&child.id()]).for_each(|pid| signal(*pid, Signal::SIGSTOP));
        // Longer than the calls may take and a worker may be stuck.
        std::thread::sleep(STALL + Duration::from_millis(1_500));
        // The node is the first to see what time it is.
        signal(child.id(), Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(50));
        workers.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
        std::thread::sleep(Duration::from_millis(500));
    }
    writeln!(orders, "end").unwrap();
    assert_eq!(said("restarts "), "0");
    assert!(child.wait().unwrap().success());
}
