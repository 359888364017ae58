//! What a program that runs a node as a service needs of it: whether it lives, who may attach, and an end in two steps.

use std::time::Duration;

use microfaas_e2e::host::Host;
use microfaas_e2e::{Watchdog, probe_node};
use microfaas_node::{Node, Request, SocketConfig, Status};

fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_node_that_lives_comes_round_when_it_is_asked() {
    let _watchdog = Watchdog::new(Duration::from_secs(100));
    let node = probe_node().workers(1).pin(false).start().unwrap();
    assert!(!node.is_over());
    for _ in 0..3 {
        let before = node.rounds();
        until(|| node.rounds() > before);
    }
    node.shutdown(Duration::ZERO);
    assert!(node.is_over());
}

#[test]
fn hosts_that_are_turned_away_finish_and_the_nodes_own_calls_go_on() {
    let _watchdog = Watchdog::new(Duration::from_secs(100));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let node = probe_node().workers(1).pin(false).socket(SocketConfig::new(&path)).start().unwrap();
    let host = Node::connect(&path).unwrap();
    let call = host.submit("sleep_spin", Request::new(b"300000")).unwrap();
    node.turn_hosts_away();
    until(|| host.submit("echo", Request::new(b"")).is_err());
    assert!(Node::connect(&path).is_err());
    assert_eq!(node.call("echo", b"own".as_slice()).body, b"own");
    assert_eq!(call.wait().status, Status::Ok);
    node.shutdown(Duration::from_secs(50));
}

#[test]
fn another_list_holds_for_hosts_that_come() {
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let _watchdog = Watchdog::new(Duration::from_secs(100));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let node =
        probe_node().workers(1).pin(false).socket(SocketConfig::new(&path).mode(0o666)).start().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(Host::attach_as(NOBODY, folder.path(), &path).unwrap_err().contains("not on the list"));
    node.admit_hosts(vec![NOBODY], Vec::new());
    let mut host = None;
    until(|| {
        host = Host::attach_as(NOBODY, folder.path(), &path).ok();
        host.is_some()
    });
    node.admit_hosts(Vec::new(), Vec::new());
    until(|| Host::attach_as(NOBODY, folder.path(), &path).is_err());
    // Who is there stays.
    assert_eq!(host.unwrap().ask("sizes"), "right");
}
