//! A node as a service: what it tells the service manager, and what it tells of itself.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::{Running, probe, run};

const WATCHDOG: Duration = Duration::from_secs(60);

fn modules() -> &'static str {
    probe().to_str().unwrap()
}

/// What comes next, as text; nothing where none does in the socket's time.
pub(crate) fn next(manager: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 1024];
    loop {
        match manager.recv(&mut buffer) {
            Ok(len) => return Some(str::from_utf8(&buffer[..len]).unwrap().to_owned()),
            // As `signal(7)` says of a process that was stopped while it waited for so long at most.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// What comes next that begins with this.
fn heard(manager: &UnixDatagram, word: &str) -> String {
    loop {
        let text = next(manager).unwrap();
        if text.starts_with(word) {
            return text;
        }
        assert_eq!(text, "WATCHDOG=1\n");
    }
}

#[test]
fn the_service_manager_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    let env = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let args = ["serve", "--modules", modules(), "--socket", "s", "--workers", "1"];
    let (mut server, _) = Running::start_in(dir.path(), &args, &env);
    let ready = heard(&manager, "READY=1\n");
    assert!(ready.contains("STATUS=serving ") && ready.contains("with 1 workers"), "{ready}");
    heard(&manager, "WATCHDOG=1\n");
    heard(&manager, "WATCHDOG=1\n");
    server.signal("-HUP");
    assert!(heard(&manager, "RELOADING=1\n").contains("MONOTONIC_USEC="));
    heard(&manager, "READY=1\nSTATUS=serving ");
    std::fs::write(dir.path().join("microfaas.toml"), "[nod]\n").unwrap();
    server.signal("-HUP");
    heard(&manager, "RELOADING=1\n");
    let refused = heard(&manager, "READY=1\n");
    assert!(
        refused.contains("STATUS=serving as before") && refused.contains("unknown key `nod`"),
        "{refused}"
    );
    server.signal("-TERM");
    heard(&manager, "STOPPING=1\n");
    assert_eq!(server.ended().exit, Some(0));
}

/// The unit's file has no key twice and starts what there is.
#[test]
fn the_unit_is_of_this_command() {
    let unit = include_str!("../../packaging/microfaas.service");
    let value = |key: &str| {
        let found: Vec<_> =
            unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        found[0].to_owned()
    };
    assert_eq!(value("Type"), "notify");
    assert_eq!(value("OOMPolicy"), "continue");
    let start = value("ExecStart");
    let mut words = start.split(' ');
    assert_eq!((words.next(), words.next()), (Some("/usr/bin/microfaas"), Some("serve")));
    let help = run(probe(), &["serve", "--help"]).ok();
    for flag in words.filter(|word| word.starts_with("--")) {
        assert!(help.text().contains(flag), "`serve` has no {flag}");
    }
}

fn stats(dir: &std::path::Path) -> Value {
    run(dir, &["stats", "--socket", "s", "--json"]).ok().json()
}

fn function<'a>(stats: &'a Value, name: &str) -> Option<&'a Value> {
    stats["functions"].as_array()?.iter().find(|function| function["name"] == name)
}

#[test]
fn what_was_called_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = ["serve", "--modules", modules(), "--socket", "s", "--workers", "1", "--http", "127.0.0.1:0"];
    let (mut server, said) = Running::start(dir, &args);
    assert_eq!(stats(dir)["functions"], Value::Array(Vec::new()));
    for _ in 0..5 {
        run(dir, &["invoke", "--socket", "s", "echo", "--data", "four"]).ok();
    }
    assert_eq!(run(dir, &["invoke", "--socket", "s", "panic"]).exit, Some(1));
    // A call is counted after it is answered.
    let start = Instant::now();
    let stats = loop {
        let stats = stats(dir);
        if function(&stats, "panic").is_some() {
            break stats;
        }
        assert!(start.elapsed() < WATCHDOG, "{stats}");
    };
    let echo = function(&stats, "echo").unwrap();
    assert_eq!(echo["calls"], serde_json::json!({ "OK": 5 }));
    assert_eq!((&echo["request_bytes"], &echo["response_bytes"]), (&20.into(), &20.into()));
    for times in ["queue", "run", "total"] {
        let (times, buckets) = (&echo[times], echo[times]["buckets"].as_array().unwrap());
        assert_eq!((times["count"].as_u64(), times["p50_ns"].is_u64()), (Some(5), true));
        assert_eq!(buckets.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum::<u64>(), 5);
    }
    assert!(echo["cpu_ns"].as_u64().unwrap() > 0);
    let share = &echo["workers"][0];
    assert_eq!(
        (&share["worker"], &share["calls"], &share["cpu_ns"]),
        (&0.into(), &echo["calls"], &echo["cpu_ns"])
    );
    assert!(share["total_p99_ns"].as_u64() >= share["run_p99_ns"].as_u64(), "{share}");
    assert_eq!(function(&stats, "panic").unwrap()["calls"], serde_json::json!({ "PANIC": 1 }));
    assert_eq!(
        (&stats["workers"][0]["calls"], &stats["workers"][0]["state"]),
        (&6.into(), &"serving".into())
    );

    let table = run(dir, &["stats", "--socket", "s"]).ok();
    assert!(table.text().lines().any(|line| line.starts_with("echo ")), "{}", table.text());
    let addr = said.iter().find_map(|line| line.strip_prefix("listening on http://")).unwrap();
    let page = crate::serving::call_get(addr.parse().unwrap(), "/metrics");
    for line in [
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r",
        "microfaas_calls_total{function=\"echo\",status=\"OK\"} 5",
        "microfaas_call_seconds_count{function=\"echo\"} 5",
        "microfaas_worker_calls_total{function=\"echo\",worker=\"0\"} 5",
        "microfaas_worker_up{worker=\"0\"} 1",
        "microfaas_worker_restarts_total{worker=\"0\",cause=\"died\"} 0",
        "# EOF",
    ] {
        assert!(page.split('\n').any(|found| found == line), "{line} is not in {page}");
    }

    let top = run(dir, &["top", "--socket", "s"]);
    assert_eq!(top.exit, Some(1));
    assert_eq!(top.err, "error: `top` needs a terminal; `microfaas stats` prints the same once\n");
    assert_eq!(server.end("-TERM").exit, Some(0));
    assert_eq!(run(dir, &["stats", "--socket", "s"]).exit, Some(1));
}
