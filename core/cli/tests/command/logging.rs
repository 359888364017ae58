//! The log of `serve`, where nobody reads it.

use std::fs::OpenOptions;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::run::{Running, probe, run, until};
use crate::serving::{answer, call_get, send};

/// More lines of the access log than a pipe holds.
const CALLS: usize = 1500;

/// Of the only worker; 0 while there is none.
fn worker(dir: &Path) -> u64 {
    let stats = run(dir, &["stats", "--socket", "s", "--json"]).ok().json();
    stats["workers"][0]["pid"].as_u64().unwrap_or(0)
}

fn kill(pid: u64) {
    let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let modules = probe().to_str().unwrap();
    let args = ["serve", "--modules", modules, "--socket", "s", "--http", "127.0.0.1:0", "--workers", "1"];
    for reads_at_last in [true, false] {
        let mut server = Running::begin(dir, &args, &[("RUST_LOG", "debug")]);
        let said = server.ready();
        let addr = said.iter().find_map(|line| line.strip_prefix("listening on http://")).unwrap();
        let addr: SocketAddr = addr.parse().unwrap();
        let echo = || assert!(call_get(addr, "/fn/echo").starts_with("HTTP/1.1 200 "));
        (0..CALLS).for_each(|_| echo());
        // The supervisor has something to say, too.
        let before = worker(dir);
        kill(before);
        until("another worker", || ![0, before].contains(&worker(dir)));
        until("a call of the other worker", || call_get(addr, "/fn/echo").starts_with("HTTP/1.1 200 "));
        if !reads_at_last {
            assert_eq!(server.end("-TERM").exit, Some(0), "the end does not wait for a reader either");
            continue;
        }
        server.read_log();
        let ended = server.end("-TERM");
        assert_eq!(ended.exit, Some(0), "{}", ended.err);
        let lines = ended.err.lines().filter(|line| line.contains("microfaas::access")).count();
        assert!(lines > CALLS, "all that the queue had room for is written: {lines}");
        assert!(ended.err.contains("worker serves"), "{}", ended.err);
    }
}

/// A pipe that has no room left.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    // Opened apart: who writes to the other waits.
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut filler = OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(path).unwrap();
    while filler.write(&[b'.'; 4096]).is_ok() {}
    (reader, writer)
}

#[test]
fn an_error_that_nobody_reads_is_an_end_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    for (http, exit) in [(busy.as_str(), 1), ("127.0.0.1:0", 3)] {
        let (_unread, full) = full_pipe();
        let args = ["serve", "--modules", "none", "--http", http];
        let mut server = Running::begin_with(dir, &args, &[("RUST_LOG", "trace")], full.into());
        assert_eq!(server.ended().exit, Some(exit), "{http}");
    }
}

/// A line about a call names the request as its caller did.
#[test]
fn a_call_that_is_lost_is_logged_with_its_request() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let modules = probe().to_str().unwrap();
    let settings = "[function.sleep_spin]\ndeadline = \"1h\"\nbudget = \"1h\"\n";
    std::fs::write(dir.join("microfaas.toml"), settings).unwrap();
    let args = [
        "serve",
        "--modules",
        modules,
        "--socket",
        "s",
        "--http",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--log",
        "json",
    ];
    let (mut server, said) = Running::start(dir, &args);
    let addr = said.iter().find_map(|line| line.strip_prefix("listening on http://")).unwrap();
    let addr = addr.parse().unwrap();
    let stream = send(addr, "/fn/sleep_spin", "x-request-id: my-own-1\r\n", "3600000000");
    // It is on its way once the worker has a slot in use, and has begun once another has that came after it: neither function has used anything before.
    until("the call", || {
        let stats = run(dir, &["stats", "--socket", "s", "--json"]).ok().json();
        stats["workers"][0]["slots_in_use"] == 1
    });
    assert!(call_get(addr, "/fn/echo").starts_with("HTTP/1.1 200 "));
    kill(worker(dir));
    assert!(answer(stream).starts_with("HTTP/1.1 502 "));
    let ended = server.end("-TERM");
    let lines = ended.err.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lost: Vec<_> = lines.filter(|line| line["message"] == "a call is lost with its worker").collect();
    assert_eq!(lost.len(), 1, "{}", ended.err);
    assert_eq!((&lost[0]["request_id"], &lost[0]["worker"]), (&"my-own-1".into(), &0.into()));
}

#[test]
fn a_filter_that_is_none_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let modules = probe().to_str().unwrap();
    let args = ["serve", "--modules", modules, "--http", "127.0.0.1:0", "--workers", "1"];
    for (filter, said) in [("info=often=so", true), ("", false), ("warn", false)] {
        let (mut server, _) = Running::start_in(dir.path(), &args, &[("RUST_LOG", filter)]);
        let ended = server.end("-TERM");
        assert_eq!(
            (ended.exit, ended.err.contains("RUST_LOG is not understood")),
            (Some(0), said),
            "{}",
            ended.err
        );
        assert_eq!(ended.err.contains("worker serves"), filter != "warn", "{}", ended.err);
    }
}
