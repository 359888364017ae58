//! The log of `serve`, where nobody reads it.

use std::net::SocketAddr;
use std::path::Path;

use crate::run::{Running, probe, run, until};
use crate::serving::call_get;

/// More lines of the access log than a pipe holds.
const CALLS: usize = 1500;

/// Of the only worker; 0 while there is none.
fn worker(dir: &Path) -> u64 {
    let stats = run(dir, &["stats", "--socket", "s", "--json"]).ok().json();
    stats["workers"][0]["pid"].as_u64().unwrap_or(0)
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
        assert!(
            std::process::Command::new("kill")
                .args(["-KILL", &before.to_string()])
                .status()
                .unwrap()
                .success()
        );
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
