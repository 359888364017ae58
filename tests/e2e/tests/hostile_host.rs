//! Hosts that mean harm: whatever they do to their connections and lanes, the node, its workers and the other hosts go on.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use microfaas_control::attach::{Complaint, FromHost, ToHost, VERSION};
use microfaas_e2e::host::{Host, holdings, hostile};
use microfaas_e2e::raw_host::RawHost;
use microfaas_e2e::{Watchdog, probe_node};
use microfaas_node::{Node, Request, SocketConfig, Status};
use microfaas_sys::memfd;
use tempfile::TempDir;

const NOBODY: u32 = 65_534;

/// A node with two workers that everybody may attach to, and an honest host with calls on their way all the time.
struct Scene {
    folder: TempDir,
    path: PathBuf,
    node: Node,
    honest: Host,
    workers: Vec<Option<u32>>,
    /// Descriptors of each worker, with the honest host's lane.
    holdings: Vec<usize>,
    _watchdog: Watchdog,
}

fn pids(node: &Node) -> Vec<Option<u32>> {
    node.workers().iter().map(|worker| worker.pid).collect()
}

/// Descriptors of a worker: one for each lane, and a few.
fn held(pid: Option<u32>) -> usize {
    holdings(pid.expect("the worker lives"))[0]
}

impl Scene {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let watchdog = Watchdog::new(Duration::from_secs(300));
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("socket");
        let config = SocketConfig::new(&path).mode(0o666).allow_user(NOBODY);
        // A spare would be one more that opens descriptors in this process while they are counted.
        let node = probe_node().workers(2).pin(false).spares(0).socket(config).start().unwrap();
        let honest = Host::attach(&path).unwrap();
        let workers = pids(&node);
        let holdings = workers.iter().map(|pid| held(*pid)).collect();
        Self { folder, path, node, honest, workers, holdings, _watchdog: watchdog }
    }

    /// Does something while the honest host has calls on their way, none of which may notice.
    fn beside<T>(&mut self, deed: impl FnOnce(&Self) -> T) -> T {
        self.honest.order("load 2500");
        let result = deed(self);
        let said = self.honest.answer();
        assert!(said.ends_with(" lost 0 wrong 0") && !said.starts_with("accepted 0 "), "{said}");
        self.assert_whole();
        result
    }

    /// Both workers live and serve the node and new hosts.
    fn assert_whole(&mut self) {
        assert_eq!(pids(&self.node), self.workers);
        // What others had of them is taken back.
        for (pid, holdings) in self.workers.iter().zip(&self.holdings) {
            while held(*pid) != *holdings {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(self.node.call("echo", Request::new(b"x")).status, Status::Ok);
        assert!(self.honest.ask("call echo y").starts_with("OK "));
        let mut late = Host::attach(&self.path).unwrap();
        assert!(late.ask("call echo z").starts_with("OK "));
    }
}

#[test]
fn a_lane_that_is_scribbled_over_is_cut_and_no_other() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        let said = scene.beside(|scene| hostile(None, scene.folder.path(), &scene.path, "scribble"));
        assert_eq!(said, "scribbled");
    }
}

#[test]
fn a_host_that_never_stops_leaves_the_others_their_turns() {
    let mut scene = Scene::new();
    let said = scene.beside(|scene| hostile(None, scene.folder.path(), &scene.path, "flood"));
    assert_eq!(said, "flooded");
}

/// What a host of another user shares with a worker has flags that both can change.
#[test]
fn a_host_that_makes_its_eventfd_block_holds_nobody_up() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut scene = Scene::new();
    let said = scene.beside(|scene| hostile(Some(NOBODY), scene.folder.path(), &scene.path, "block"));
    assert_eq!(said, "blocked");
}

/// The node is told of each, and need not keep up.
#[test]
fn faults_without_end_cost_no_worker() {
    let mut scene = Scene::new();
    let said = scene.beside(|scene| hostile(None, scene.folder.path(), &scene.path, "crash"));
    assert_eq!(said, "crashed");
}

/// Safe code relies on what it borrows: a host of another user cannot change that, its requests are copied.
#[test]
fn a_request_stays_as_it_is_while_a_function_looks_at_it() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut scene = Scene::new();
    let said = scene.beside(|scene| hostile(Some(NOBODY), scene.folder.path(), &scene.path, "mutate"));
    assert_eq!(said, "OK steady;OK steady");
}

#[test]
fn what_is_no_message_ends_the_connection() {
    let mut scene = Scene::new();
    scene.beside(|scene| {
        let connect = || RawHost::connect(&scene.path).unwrap();
        for junk in [&b"{"[..], b"\"hello\"", b"{\"mapped\":{\"lane\":1}}", &[0; 60_000]] {
            let host = connect();
            host.send(junk, &[]).unwrap();
            assert!(!host.last_words().unwrap().is_empty());
        }
        let host = connect();
        host.say(&FromHost::Hello { version: VERSION + 1, lanes: true }).unwrap();
        let said = host.last_words().unwrap();
        assert!(said.contains(&format!("version {}", VERSION + 1)), "{said}");
        // Twice, and what does not belong there.
        for message in [
            FromHost::Hello { version: VERSION, lanes: true },
            FromHost::Mapped { lane: 1 },
            FromHost::Complaint { lane: 1, about: Complaint::Violation },
        ] {
            let host = RawHost::attach(&scene.path).unwrap();
            host.say(&message).unwrap();
            // The first may have been enough.
            let _ = host.say(&FromHost::Mapped { lane: host.lanes[0].number });
            assert!(!host.last_words().unwrap().is_empty(), "{message:?}");
        }
    });
}

/// No descriptor of a host ever gets further than the socket.
#[test]
fn descriptors_are_refused_and_closed() {
    let mut scene = Scene::new();
    scene.beside(|scene| {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        let memory = memfd::create(c"hostile", 4096).unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let folder = std::fs::File::open("/").unwrap();
        for fds in [vec![memory.as_fd()], vec![reader.as_fd(), writer.as_fd()], vec![folder.as_fd(); 253]] {
            let host = RawHost::connect(&scene.path).unwrap();
            match host.send(b"{\"hello\":{\"version\":1,\"lanes\":true}}", &fds) {
                Ok(()) => assert!(host.last_words().unwrap().contains("descriptors")),
                // The kernel does not even let them be sent, since Linux 6.16.
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
            }
        }
        drop((memory, reader, writer, folder));
        while open() > before {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn who_says_nothing_is_shown_out() {
    let mut scene = Scene::new();
    let silent = RawHost::connect(&scene.path).unwrap();
    let slow = RawHost::connect(&scene.path).unwrap();
    slow.say(&FromHost::Hello { version: VERSION, lanes: true }).unwrap();
    scene.beside(|_| {
        assert_eq!(silent.last_words().unwrap(), "no answer in time");
    });
    // It took the offer and did not answer.
    assert_eq!(slow.last_words().unwrap(), "no answer in time");
    scene.assert_whole();
}

#[test]
fn many_connections_are_limited() {
    let mut scene = Scene::new();
    scene.beside(|scene| {
        let silent: Vec<RawHost> = (0..64).map(|_| RawHost::connect(&scene.path).unwrap()).collect();
        let refused = silent.iter().filter(|host| host.last_words().unwrap().contains("come again")).count();
        assert!(refused >= 32, "{refused}");
    });
    let attached: Vec<_> =
        std::iter::repeat_with(|| RawHost::attach(&scene.path)).take_while(Result::is_ok).collect();
    // 127, of which the scene has one.
    assert_eq!(attached.len(), 126);
    let Err(error) = RawHost::attach(&scene.path) else { panic!("one more than there can be") };
    assert!(error.to_string().contains("127 hosts are attached"), "{error}");
    assert!(scene.honest.ask("call echo y").starts_with("OK "));
    drop(attached);
    while RawHost::attach(&scene.path).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    scene.assert_whole();
}

#[test]
fn complaints_of_others_cost_no_worker() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut scene = Scene::new();
    let said = scene.beside(|scene| hostile(Some(NOBODY), scene.folder.path(), &scene.path, "complain"));
    assert_eq!(said, "taken back");
    // One's own user is believed. That it makes its descriptor of the worker not wait is nothing to the node, which has another.
    let host = RawHost::attach(&scene.path).unwrap();
    let lane = &host.lanes[0];
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&lane.process, flags).unwrap();
    host.say(&FromHost::Complaint { lane: lane.number, about: Complaint::Violation }).unwrap();
    loop {
        if matches!(host.hear().unwrap().0, ToHost::Gone { .. }) {
            break;
        }
    }
    let worker = lane.worker as usize;
    while pids(&scene.node)[worker].is_none_or(|pid| Some(pid) == scene.workers[worker]) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let old = scene.workers[worker].unwrap();
    while std::path::Path::new(&format!("/proc/{old}")).exists() {
        // Not even a zombie.
        std::thread::sleep(Duration::from_millis(5));
    }
    scene.workers = pids(&scene.node);
}
