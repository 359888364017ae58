//! Attached hosts that are short of something: their calls go on, and they get what they lacked when it is there.

use std::time::{Duration, Instant};

use microfaas_e2e::host::Host;
use microfaas_e2e::{Watchdog, probe_node};
use microfaas_node::WorkerState;

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_host_without_descriptors_keeps_its_calls_and_gets_the_lane_later() {
    let _watchdog = Watchdog::new(Duration::from_secs(300));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let node = probe_node().workers(2).pin(false).socket(&path).start().unwrap();
    let mut host = Host::attach(&path).unwrap();
    // The first of two workers without calls is the one that gets it.
    assert_eq!(host.ask("submit sleep_spin 500000"), "submitted");
    let second = node.workers()[1];
    assert_eq!(host.ask("no-descriptors"), "so be it");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(second.pid.unwrap().cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    until("another worker", || {
        let now = node.workers()[1];
        now.generation > second.generation && now.state == WorkerState::Serving
    });
    // While it cannot take the lane to the new worker, it has the other one.
    for i in 0..20 {
        assert_eq!(host.ask(&format!("call echo {i}")), format!("OK 0 {i}"));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(host.ask("wait").starts_with("OK "), "the call that was on its way is answered");
    assert_eq!(host.ask("descriptors"), "so be it");
    until("a lane to the other worker", || {
        host.ask("submit sleep_spin 20000");
        let answer = host.ask("call echo x");
        assert!(host.ask("wait").starts_with("OK "));
        answer == "OK 1 x"
    });
    assert_eq!(node.stats().restarts, 1);
}
