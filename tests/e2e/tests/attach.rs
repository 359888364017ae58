//! Hosts in other processes: attached by a socket, isolated from each other, and taken back when they go.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use microfaas_e2e::host::{Host, at_work, holdings};
use microfaas_e2e::{Watchdog, probe, probe_node, started};
use microfaas_node::{
    ConnectError, FunctionConfig, Limits, Node, NodeBuilder, NodeError, Request, SocketConfig, SocketError,
    Status,
};
use tempfile::TempDir;

/// A folder for a socket that everybody can reach.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("socket");
    (folder, path)
}

fn node(path: &Path) -> NodeBuilder {
    probe_node().workers(2).pin(false).socket(path)
}

fn watchdog() -> Watchdog {
    Watchdog::new(Duration::from_secs(300))
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pids(node: &Node) -> Vec<u32> {
    node.workers().iter().filter_map(|worker| worker.pid).collect()
}

fn text(node: &Node, function: &str, body: &str) -> String {
    let answer = node.call(function, Request::new(body.as_bytes()));
    assert_eq!(answer.status, Status::Ok, "{}", answer.detail);
    String::from_utf8(answer.body).unwrap()
}

#[test]
fn a_host_calls_by_a_socket() {
    let _watchdog = watchdog();
    let (_folder, path) = folder();
    let node = node(&path).start().unwrap();
    let host = Node::connect(&path).unwrap();
    let names = |node: &Node| node.functions().iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&host), names(&node));
    assert_eq!(pids(&host), pids(&node));
    assert_eq!(host.sandbox(0), node.sandbox(0));
    for i in 0..1000 {
        assert_eq!(text(&host, "echo", &i.to_string()), i.to_string());
    }
    assert_eq!(host.stats().completed(Status::Ok), 1000);
    assert_eq!(node.stats().completed(Status::Ok), 0, "the node sees nothing of it");
    // Both use the workers at the same time.
    let long = host.submit("sleep_spin", b"100000".as_slice().into()).unwrap();
    assert_eq!(text(&node, "echo", "beside"), "beside");
    assert_eq!(long.wait().status, Status::Ok);
    // An event loop in the host.
    let mut call = host.submit("sleep_spin", b"20000".as_slice().into()).unwrap();
    let completion = loop {
        if let Some(completion) = call.try_take() {
            break completion;
        }
        if host.arm() {
            microfaas_sys::poll::is_readable(host.event_fd(), Some(Duration::from_secs(60))).unwrap();
        }
        host.disarm();
        host.poll();
    };
    assert_eq!(completion.status, Status::Ok);
    let error = host.call("nobody", Request::new(b""));
    assert_eq!(error.status, Status::NotFound);
    let late = Request::new(b"400000").deadline(Duration::from_millis(30));
    assert_eq!(started(&host, "sleep_spin", late).status, Status::Timeout);
}

#[test]
fn two_hosts_do_not_see_each_other() {
    let _watchdog = watchdog();
    let (_folder, path) = folder();
    let node = node(&path).start().unwrap();
    let (mut one, mut two) = (Host::attach(&path).unwrap(), Host::attach(&path).unwrap());
    one.order("load 1500");
    two.order("load 1500");
    for host in [&mut one, &mut two] {
        let said = host.answer();
        assert!(said.starts_with("accepted ") && said.ends_with(" lost 0 wrong 0"), "{said}");
        assert!(!said.starts_with("accepted 0 "), "{said}");
        assert_eq!(host.ask("sizes"), "right");
    }
    assert_eq!(text(&node, "echo", "still here"), "still here");
    // No memory of theirs is the other's.
    let regions = |pid: u32| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let shared = maps.lines().filter(|line| line.contains("memfd:microfaas-"));
        shared.filter_map(|line| line.split_whitespace().nth(4).map(str::to_owned)).collect::<Vec<_>>()
    };
    let (mine, theirs) = (regions(one.pid()), regions(two.pid()));
    // Three of each of two lanes, and what it counts in.
    assert_eq!((mine.len(), theirs.len()), (7, 7));
    assert!(mine.iter().all(|inode| !theirs.contains(inode)));
}

#[test]
fn a_host_that_is_killed_leaves_nothing_and_hurts_nobody() {
    let _watchdog = watchdog();
    let (_folder, path) = folder();
    let node = node(&path).workers(1).start().unwrap();
    let worker = pids(&node)[0];
    let before = holdings(worker);
    let mut other = Host::attach(&path).unwrap();
    let with_one = holdings(worker);
    assert_ne!(with_one[1], before[1], "a lane is mapped");
    for _ in 0..5 {
        let mut host = Host::attach(&path).unwrap();
        for _ in 0..10 {
            host.ask("submit sleep_spin 5000000");
        }
        host.kill();
        // Its calls have the core for seconds, were they not dropped.
        assert_eq!(other.ask("call echo here"), "OK 0 here");
        until("the end of the lane", || holdings(worker)[..2] == with_one[..2]);
    }
    assert_eq!(other.ask("call counter "), "OK 0 1 1");
    other.kill();
    until("the end of the last lane", || holdings(worker)[..2] == before[..2]);
    assert_eq!(pids(&node), [worker]);
}

#[test]
fn hosts_that_come_and_go_leave_nothing() {
    let _watchdog = watchdog();
    let (_folder, path) = folder();
    let node = node(&path).spares(0).start().unwrap();
    let worker = pids(&node)[0];
    let own_fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let alone = holdings(worker);
    let cycle = || {
        let host = Node::connect(&path).unwrap();
        assert_eq!(text(&host, "echo", "hello"), "hello");
        host.shutdown(Duration::ZERO);
    };
    let settled = || {
        until("the end of the last lane, with all that it took", || holdings(worker)[..2] == alone[..2]);
        holdings(worker)
    };
    (0..10).for_each(|_| cycle());
    let (before, fds) = (settled(), own_fds());
    (0..200).for_each(|_| cycle());
    let after = settled();
    assert!(after[2] < before[2] + 1024, "KiB of the worker: {} and then {}", before[2], after[2]);
    until("descriptors of this process", || own_fds() <= fds);
    assert_eq!(pids(&node)[0], worker);
}

#[test]
fn a_worker_that_is_killed_costs_each_call_one_answer() {
    let _watchdog = watchdog();
    let (_folder, path) = folder();
    let node = node(&path).start().unwrap();
    let mut host = Host::attach(&path).unwrap();
    host.order("load 3000");
    for i in 0..4 {
        std::thread::sleep(Duration::from_millis(500));
        let pid = node.workers()[i % 2].pid;
        if let Some(pid) = pid {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGKILL)
                .unwrap();
        }
    }
    let said = host.answer();
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [accepted, ok, lost, wrong] = numbers[..] else { panic!("{said}") };
    assert!(wrong == 0 && ok > 0 && accepted == ok + lost, "{said}");
    until("both workers", || pids(&node).len() == 2);
    // That of the first again, when the host has its new lane.
    until("the first worker", || host.ask("call echo after") == "OK 0 after");
}

#[test]
fn a_worker_that_is_stopped_is_replaced_on_a_hosts_word() {
    let _watchdog = watchdog();
    let (_folder, path) = folder();
    let node = node(&path).workers(1).stall(Duration::from_millis(300)).start().unwrap();
    let host = Node::connect(&path).unwrap();
    let first = pids(&node)[0];
    let stopped = nix::unistd::Pid::from_raw(first.cast_signed());
    nix::sys::signal::kill(stopped, nix::sys::signal::SIGSTOP).unwrap();
    let answer = host.call("echo", Request::new(b"x").deadline(Duration::from_millis(100)));
    assert!(matches!(answer.status, Status::Timeout | Status::Expired), "{answer:?}");
    until("another worker", || pids(&node).iter().any(|pid| *pid != first));
    until("a lane to it", || host.call("echo", Request::new(b"x")).status == Status::Ok);
}

#[test]
fn a_host_outlives_its_node() {
    let _watchdog = watchdog();
    let (_folder, path) = folder();
    let limits = Limits { budget_ns: 60_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(Duration::from_secs(60));
    let first = node(&path).function("sleep_spin", config).start().unwrap();
    let host = Node::connect(&path).unwrap();
    let call = at_work(pids(&first)[0], || host.submit("sleep_spin", b"60000000".as_slice().into()).unwrap());
    drop(first);
    assert!(!path.exists(), "the socket goes with its node");
    let answer = call.wait();
    // Its node has said that it stops, and has given it no time.
    let stopped = "the node has stopped, and the call's time to end was up; it may have run";
    assert_eq!((answer.status, &*answer.detail), (Status::Cancelled, stopped));
    assert_eq!(host.call("echo", Request::new(b"x")).status, Status::Overloaded);
    // It has one worker more, for which the host has no place.
    let second = node(&path).workers(3).start().unwrap();
    until("another attachment", || host.call("echo", Request::new(b"x")).status == Status::Ok);
    until("a lane to the other one", || pids(&host) == pids(&second)[..2]);
}

#[test]
fn a_node_that_stops_waits_for_the_calls_of_hosts() {
    let _watchdog = watchdog();
    let (_folder, path) = folder();
    let node = node(&path).start().unwrap();
    let host = Node::connect(&path).unwrap();
    let call = host.submit("sleep_spin", b"300000".as_slice().into()).unwrap();
    let stopping = std::thread::spawn(move || node.shutdown(Duration::from_secs(60)));
    let answer = call.wait();
    assert_eq!(answer.status, Status::Ok, "{}", answer.detail);
    stopping.join().unwrap();
}

#[test]
fn a_socket_is_taken_over_from_the_dead_only() {
    let _watchdog = watchdog();
    let (folder, path) = folder();
    let refused = |path: &Path| node(path).start().unwrap_err();
    let live = node(&path).start().unwrap();
    assert!(matches!(refused(&path), NodeError::Socket(SocketError::Busy { .. })), "{}", refused(&path));
    assert_eq!(text(&Node::connect(&path).unwrap(), "echo", "untouched"), "untouched");
    drop(live);
    let error = Node::connect(&path).unwrap_err();
    assert!(matches!(error, ConnectError::NoNode { .. }), "{error}");
    // What a node leaves that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(Node::connect(&path).unwrap_err(), ConnectError::NoNode { .. }));
    let node = node(&path).start().unwrap();
    assert_eq!(text(&Node::connect(&path).unwrap(), "echo", "taken over"), "taken over");
    drop(node);
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(refused(&path), NodeError::Socket(SocketError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let error = refused(&folder.path().join("no/such/folder"));
    assert!(matches!(error, NodeError::Socket(SocketError::System { .. })), "{error}");
}

#[test]
fn others_may_attach_where_the_list_says_so() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let _watchdog = watchdog();
    let (folder, path) = folder();
    const NOBODY: u32 = 65_534;
    let start = |config: SocketConfig| probe_node().workers(1).pin(false).socket(config).start().unwrap();
    let denied = start(SocketConfig::new(&path));
    let said = Host::attach_as(NOBODY, folder.path(), &path).unwrap_err();
    assert!(said.contains("this user may not connect"), "{said}");
    drop(denied);
    let unlisted = start(SocketConfig::new(&path).mode(0o666));
    let said = Host::attach_as(NOBODY, folder.path(), &path).unwrap_err();
    assert!(said.contains("user 65534 is not on the list"), "{said}");
    drop(unlisted);
    for config in [SocketConfig::new(&path).allow_user(NOBODY), SocketConfig::new(&path).allow_group(NOBODY)]
    {
        let node = start(config.mode(0o666));
        let mut host = Host::attach_as(NOBODY, folder.path(), &path).unwrap();
        // Copied on the way in and out.
        assert_eq!(host.ask("sizes"), "right");
        assert_eq!(host.ask("call counter "), "OK 0 1 1");
        let said = host.ask("load 500");
        assert!(said.ends_with(" lost 0 wrong 0"), "{said}");
        drop(node);
    }
}

#[test]
fn a_socket_that_cannot_be_given_to_its_group_is_not_left_behind() {
    let _watchdog = watchdog();
    let (folder, path) = folder();
    let module = folder.path().join("module.so");
    std::fs::copy(probe(), &module).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    const NOBODYS: u32 = 4_000_000_000;
    let config = SocketConfig::new(&path).group(NOBODYS);
    // Before any worker is started.
    let builder = Node::builder().worker_binary(&module).module(module).workers(1).socket(config);
    let start = move || {
        // For this thread alone; root may give files to anybody.
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        builder.start().unwrap_err()
    };
    let error = std::thread::spawn(start).join().unwrap();
    assert!(matches!(error, NodeError::Socket(SocketError::Group { group: NOBODYS, .. })), "{error}");
    assert!(!path.exists());
}

/// While a node drains, a host has no lane to submit to any more. What comes back on those that it had is for sleeping futures, too.
#[test]
fn futures_are_answered_while_the_node_drains() {
    let (_folder, path) = folder();
    let node = node(&path).workers(1).start().unwrap();
    let host = Node::connect(&path).unwrap();
    let _watchdog = Watchdog::new(Duration::from_secs(100));
    let request = Request::new(b"200000").deadline(Duration::from_secs(250));
    let call = host.submit("sleep_spin", request).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| node.shutdown(Duration::from_secs(250)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(call).status, Status::Ok);
    });
}
