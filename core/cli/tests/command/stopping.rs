//! `serve` at its end: before it is ready, with attached hosts, in the middle of a reload, and where it only seems to live.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use microfaas_node::{Node, Request, Status};
use nix::fcntl::OFlag;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::run::{Running, probe, run, until};
use crate::service::next;

const WATCHDOG: Duration = Duration::from_secs(60);
/// Datagrams: at most `net.unix.max_dgram_qlen`, which is 10, or 512 where systemd has set it.
const MORE_THAN_A_SOCKET_HOLDS: u32 = 1000;

fn serve(dir: &Path, settings: &str, more: &[&str]) -> (Running, Vec<String>) {
    fs::write(dir.join("microfaas.toml"), format!("{settings}\n[function.sleep_spin]\nbudget = \"1h\"\n"))
        .unwrap();
    let args = ["serve", "--modules", probe().to_str().unwrap(), "--workers", "1", "--socket", "s"];
    Running::start(dir, &[&args, more].concat())
}

#[test]
fn calls_of_attached_hosts_are_finished_while_those_over_http_are() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut server, said) = serve(dir, "", &["--http", "127.0.0.1:0"]);
    let addr = said.iter().find_map(|line| line.strip_prefix("listening on http://")).unwrap();
    let host = Node::connect(dir.join("s")).unwrap();
    // Longer than two seconds, and the request over HTTP is longer than that.
    let call = host.submit("sleep_spin", Request::new(b"2500000")).unwrap();
    let http = crate::serving::send_surely(addr.parse().unwrap(), "/fn/sleep_spin", "3500000");
    server.signal("-TERM");
    // Nothing new comes by either way, though the gateway has still something to do.
    until("a host without a worker", || host.submit("echo", Request::new(b"")).is_err());
    until("a closed port", || TcpStream::connect(addr).is_err());
    assert!(Node::connect(dir.join("s")).is_err());
    let done = call.wait();
    assert_eq!(done.status, Status::Ok, "{}", done.detail);
    assert!(crate::serving::answer(http).starts_with("HTTP/1.1 200 "));
    assert_eq!(server.ended().exit, Some(0));
}

#[test]
fn what_outlasts_the_stop_is_cancelled_for_attached_hosts_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut server, _) = serve(dir, "[node]\nstop_timeout = \"200ms\"\n", &[]);
    let host = Node::connect(dir.join("s")).unwrap();
    let request = Request::new(b"600000000").deadline(Duration::from_secs(900));
    let call = host.submit("sleep_spin", request).unwrap();
    server.signal("-TERM");
    let done = call.wait();
    assert_eq!(done.status, Status::Cancelled, "{}", done.detail);
    assert!(done.detail.starts_with("the node has stopped"), "{}", done.detail);
    assert_eq!(server.ended().exit, Some(0));
}

/// The directory of a module whose `init` does not end.
fn slow(dir: &Path) -> PathBuf {
    run(dir, &["new", "slow"]).ok();
    let code = "//! Never comes up.\n#![forbid(unsafe_code)]\n\n\
        /// Spins.\npub fn spin() -> Result<u8, std::convert::Infallible> {\n    loop {\n        std::hint::spin_loop();\n    }\n}\n\n\
        /// Never called.\n#[microfaas::function(init = spin)]\npub fn slow(_: &u8, body: &[u8]) -> Vec<u8> {\n    body.to_vec()\n}\n";
    fs::write(dir.join("slow/src/lib.rs"), code).unwrap();
    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/functions");
    run(dir, &["build", "slow", "-o", "modules", "--dev", "--target-dir", target]).ok();
    dir.join("modules")
}

/// Processes that this one has started, threads' children included.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks
        .map(of)
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>())
        .collect()
}

#[test]
fn a_signal_while_it_starts_ends_it_and_leaves_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let modules = slow(dir);
    for (signal, exit) in [("-TERM", 143), ("-INT", 130)] {
        let args =
            ["serve", "--modules", modules.to_str().unwrap(), "--workers", "2", "--http", "127.0.0.1:0"];
        let mut server = Running::begin(dir, &args, &[]);
        server.read_log();
        until("workers that are about to load", || children(server.id()).len() >= 2);
        let workers = children(server.id());
        let ended = server.end(signal);
        assert_eq!(ended.exit, Some(exit), "{}", ended.err);
        assert!(ended.err.contains("before it was ready"), "{}", ended.err);
        let is_gone = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        until("the end of the workers", || workers.iter().all(is_gone));
    }
}

#[test]
fn a_reload_that_hangs_keeps_nobody_from_stopping_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut server, _) = serve(dir, "", &[]);
    let settings = dir.join("microfaas.toml");
    fs::remove_file(&settings).unwrap();
    // Who reads it waits for a writer that writes, as for a file system that does not answer.
    assert!(Command::new("mkfifo").arg(&settings).status().unwrap().success());
    server.signal("-HUP");
    let mut writer = None;
    until("a reload that reads", || {
        writer = File::options().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&settings).ok();
        writer.is_some()
    });
    assert_eq!(server.end("-TERM").exit, Some(0));
}

/// The thread of this name, stopped; it goes on when this is dropped.
pub(crate) struct Stopped(pub(crate) Pid);

impl Stopped {
    pub(crate) fn new(pid: u32, name: &str) -> Self {
        let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let task = tasks
            .find(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name));
        let tid = Pid::from_raw(task.unwrap().file_name().to_str().unwrap().parse().unwrap());
        ptrace::seize(tid, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(tid).unwrap();
        waitpid(tid, Some(WaitPidFlag::__WALL)).unwrap();
        Self(tid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

/// One that is stuck is no reason not to serve, nor not to stop.
#[test]
fn a_service_manager_that_does_not_read_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let socket = dir.join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    // Its socket is full from the first.
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"WATCHDOG=1\n", &socket).is_ok() {}
    let env = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "2000")];
    let args = ["serve", "--modules", probe().to_str().unwrap(), "--workers", "1", "--http", "127.0.0.1:0"];
    let (mut server, said) = Running::start_in(dir, &args, &env);
    let addr = said.iter().find_map(|line| line.strip_prefix("listening on http://")).unwrap();
    for _ in 0..20 {
        let echo = crate::serving::call_get(addr.parse().unwrap(), "/fn/echo");
        assert!(echo.starts_with("HTTP/1.1 200 "), "{echo}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.end("-TERM").exit, Some(0));
    drop(manager);
}

/// The gateway's thread turns and the supervisor does not: no worker would be replaced.
#[test]
fn the_watchdog_is_told_nothing_of_a_node_whose_supervisor_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let manager = UnixDatagram::bind(dir.join("notify")).unwrap();
    let socket = dir.join("notify");
    let env = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "100000")];
    let args = ["serve", "--modules", probe().to_str().unwrap(), "--socket", "s", "--workers", "1"];
    let (mut server, _) = Running::start_in(dir, &args, &env);
    let heard = |within: Duration| {
        manager.set_read_timeout(Some(within)).unwrap();
        next(&manager)
    };
    until("a sign of life", || heard(WATCHDOG).unwrap() == "WATCHDOG=1\n");
    let stopped = Stopped::new(server.id(), "microfaas-node");
    // What was said before may wait to be heard, as much as a socket holds, and one may come of what the thread did just before.
    let mut more = 0;
    while heard(Duration::from_millis(500)).is_some() {
        more += 1;
        assert!(more < MORE_THAN_A_SOCKET_HOLDS, "it is said to be well");
    }
    drop(stopped);
    until("a sign of life", || heard(WATCHDOG).unwrap() == "WATCHDOG=1\n");
    assert_eq!(server.end("-TERM").exit, Some(0));
}
