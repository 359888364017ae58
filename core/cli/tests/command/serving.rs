//! `serve`: from its first line to its last.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::run::{Running, probe};

fn start(args: &[&str]) -> (Running, SocketAddr, Vec<String>) {
    let probe = probe();
    let all = [&["serve", "--modules", probe.to_str().unwrap(), "--http", "127.0.0.1:0"], args].concat();
    let (running, said) = Running::start(probe, &all);
    let addr = said.iter().find_map(|line| line.strip_prefix("listening on http://")).unwrap();
    (running, addr.parse().unwrap(), said)
}

/// Sends a request and does not wait.
pub(crate) fn send(addr: SocketAddr, target: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let len = body.len();
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {len}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    stream
}

/// Sends a request of which the gateway has the head for certain when this returns.
pub(crate) fn send_surely(addr: SocketAddr, target: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let len = body.len();
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: {len}\r\n\r\n"
    )
    .unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    stream
}

pub(crate) fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn call(addr: SocketAddr, target: &str, body: &str) -> String {
    answer(send(addr, target, "", body))
}

#[test]
fn it_says_what_it_serves_and_serves_it() {
    let (mut server, addr, said) = start(&[]);
    assert!(said.iter().any(|line| line.starts_with("function echo (")), "{said:?}");
    let echo = call(addr, "/fn/echo", "over http");
    assert!(echo.starts_with("HTTP/1.1 200 ") && echo.ends_with("\r\n\r\nover http"), "{echo}");
    let health = call_get(addr, "/healthz");
    assert!(health.starts_with("HTTP/1.1 200 ") && health.contains("\"workers_up\":1"), "{health}");

    let fail = call(addr, "/fn/fail", "short and stout");
    assert!(fail.starts_with("HTTP/1.1 418 ") && fail.contains("short and stout"), "{fail}");
    let panic = call(addr, "/fn/panic", "a secret");
    assert!(panic.starts_with("HTTP/1.1 500 ") && panic.contains("\"PANIC\""), "{panic}");
    assert!(!panic.contains("a secret"), "{panic}");
    assert!(call(addr, "/fn/nobody", "").starts_with("HTTP/1.1 404 "));
    let late = answer(send(addr, "/fn/sleep_spin", "x-microfaas-deadline-ms: 30\r\n", "400000"));
    assert!(late.starts_with("HTTP/1.1 504 "), "{late}");

    let ended = server.end("-TERM");
    assert_eq!(ended.exit, Some(0), "{}", ended.err);
    // The log has the panic's text, and one line a request.
    assert!(ended.err.contains("a secret"), "{}", ended.err);
    let access = ended.err.lines().filter(|line| line.contains("microfaas::access")).count();
    assert_eq!(access, 6, "{}", ended.err);
}

pub(crate) fn call_get(addr: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
    answer(stream)
}

#[test]
fn what_is_in_flight_is_finished_on_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let (mut server, addr, _) = start(&[]);
        let running = send_surely(addr, "/fn/sleep_spin", "300000");
        let ended = server.end(signal);
        assert_eq!(ended.exit, Some(0), "{}", ended.err);
        assert!(answer(running).starts_with("HTTP/1.1 200 "));
        assert!(TcpStream::connect(addr).is_err());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let settings = "[node]\nstop_timeout = \"1h\"\n[http]\nstop_timeout = \"1h\"\n\
         [function.sleep_spin]\ndeadline = \"1h\"\nbudget = \"1h\"\n";
    fs::write(dir.path().join("microfaas.toml"), settings).unwrap();
    let args = ["serve", "--modules", probe().to_str().unwrap(), "--http", "127.0.0.1:0"];
    let (mut server, said) = Running::start(dir.path(), &args);
    let addr =
        said.iter().find_map(|line| line.strip_prefix("listening on http://")).unwrap().parse().unwrap();
    let _running = send_surely(addr, "/fn/sleep_spin", "3600000000");
    server.signal("-TERM");
    // The port closes when the first signal was heard.
    while TcpStream::connect(addr).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = server.end("-INT");
    assert_eq!(ended.exit, Some(128 + 2), "{}", ended.err);
}

#[test]
fn the_log_can_be_json() {
    let (mut server, addr, _) = start(&["--log", "json"]);
    call(addr, "/fn/echo?q=1", "12345");
    let ended = server.end("-TERM");
    let lines: Vec<serde_json::Value> =
        ended.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert!(
        last["message"] == "stopped" && last["after_ms"].is_u64() && last["connections_cut"] == 0,
        "{last}"
    );
    let access: Vec<_> = lines.iter().filter(|line| line["target"] == "microfaas::access").collect();
    let [line] = access[..] else { panic!("{lines:?}") };
    assert_eq!(
        (&line["method"], &line["status"], &line["http"]),
        (&"POST".into(), &"OK".into(), &200.into())
    );
    assert_eq!((&line["bytes_in"], &line["bytes_out"], &line["worker"]), (&5.into(), &5.into(), &0.into()));
    assert_eq!((&line["path"], &line["function"]), (&"/fn/echo".into(), &"echo".into()));
    assert!(line["total_us"].is_u64() && line["cpu_us"].is_u64() && line["id"].is_string(), "{line}");
}

#[test]
fn settings_hold_and_flags_win() {
    let dir = tempfile::tempdir().unwrap();
    let settings = format!(
        "[node]\nmodules = [{:?}]\nworkers = 2\n\
         [http]\nlisten = \"127.0.0.1:1\"\nbody_limit = 10\naccess_log = false\nhead_timeout = \"3s\"\n\
         routes = [{{ path = \"/say\", function = \"echo\" }}]\n\
         [function.sleep_spin]\ndeadline = \"30ms\"\nbudget = \"1h\"\n",
        probe()
    );
    fs::write(dir.path().join("microfaas.toml"), settings).unwrap();
    let (mut server, said) =
        Running::start(dir.path(), &["serve", "--http", "127.0.0.1:0", "--workers", "1"]);
    let addr =
        said.iter().find_map(|line| line.strip_prefix("listening on http://")).unwrap().parse().unwrap();
    assert!(call(addr, "/say/it", "ten bytes!").ends_with("\r\n\r\nten bytes!"));
    assert!(call(addr, "/say/it", "11 in bytes").starts_with("HTTP/1.1 413 "));
    assert!(call(addr, "/fn/sleep_spin", "3600000000").starts_with("HTTP/1.1 504 "));
    assert!(call_get(addr, "/healthz").contains("\"workers\":1,"));
    // Who never ends the head is cut, and so is not waited for at the end.
    let mut endless = TcpStream::connect(addr).unwrap();
    endless.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    endless.write_all(b"GET /fn/echo HTTP/1.1\r\nhost: h\r\n").unwrap();
    let cut = endless.read_to_end(&mut Vec::new());
    assert!(cut.is_ok() || cut.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
    let ended = server.end("-TERM");
    assert_eq!(ended.exit, Some(0), "{}", ended.err);
    assert!(!ended.err.contains("microfaas::access"), "{}", ended.err);
}
