//! The gateway in front of a real node with a real worker. Needs the worker's program: `cargo build --workspace --bins`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use microfaas_build::{BuildOptions, Profile, build};
use microfaas_http::{Config, Gateway};
use microfaas_node::{FunctionConfig, Limits, Node, NodeBuilder, Status};
use tokio::net::TcpStream;

/// No test takes this long unless something hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Where the probe's module is; built once for all tests of a process. Processes share it: a module is replaced whole.
static MODULES: LazyLock<PathBuf> = LazyLock::new(|| {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let out = scratch.join("probe");
    let probe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/functions/probe");
    let mut options = BuildOptions::new([probe], &out);
    options.profile = Profile::Dev;
    options.target_dir = Some(scratch.join("functions"));
    build(&options, &mut |_| {}).unwrap();
    out
});

/// A node of one worker, and a gateway in front of it on the given runtime.
struct Served {
    node: Arc<Node>,
    addr: SocketAddr,
}

async fn serve(settings: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Served {
    let node = settings(Node::builder().modules(&*MODULES).workers(1)).start().unwrap();
    let node = Arc::new(node);
    let gateway = Gateway::bind("127.0.0.1:0", Config::default(), Arc::clone(&node)).await.unwrap();
    let addr = gateway.local_addr();
    tokio::spawn(gateway.serve(std::future::pending()));
    Served { node, addr }
}

/// Runs a test under the watchdog, on one thread, as the command does. The module is there before: a compiler may take longer than any test.
fn run(test: impl Future<Output = ()>) {
    LazyLock::force(&MODULES);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(WATCHDOG, test).await.expect("the test hangs") });
}

fn request(addr: SocketAddr, function: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let uri = format!("http://{addr}/fn/{function}");
    Request::builder()
        .method("POST")
        .uri(uri)
        .header("host", addr.to_string())
        .body(Full::new(body.into()))
        .unwrap()
}

async fn send(request: Request<Full<Bytes>>) -> (u16, HeaderMap, Bytes) {
    let addr = request.uri().authority().unwrap().to_string();
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    (parts.status.as_u16(), parts.headers, body)
}

async fn call(addr: SocketAddr, function: &str, body: impl Into<Bytes>) -> (u16, Bytes) {
    let (http, _, body) = send(request(addr, function, body)).await;
    (http, body)
}

/// Microseconds of a call that no test waits for.
const ENDLESS: &str = "3600000000";

/// Calls of `sleep_spin` have no end by budget or deadline.
fn endless(node: NodeBuilder) -> NodeBuilder {
    let limits = Limits { budget_ns: 3_600_000_000_000, ..Limits::default() };
    node.function("sleep_spin", FunctionConfig::default().limits(limits).deadline(Duration::from_secs(3600)))
}

fn status_in(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    body["error"]["status"].as_str().unwrap().to_owned()
}

#[test]
fn bodies_of_every_size_come_back() {
    run(async {
        let served = serve(|node| node).await;
        for len in [0, 1, 4095, 4096, 4097, 65_536, 1 << 20, 8 << 20] {
            let body: Vec<u8> = (0..=250).cycle().take(len).collect();
            let (http, back) = call(served.addr, "echo", body.clone()).await;
            assert_eq!((http, back.len(), back == body), (200, len, true));
        }
    });
}

#[test]
fn each_end_that_a_probe_can_bring_about() {
    run(async {
        let served = serve(endless).await;
        let (http, body) = call(served.addr, "fail", "short and stout").await;
        assert_eq!((http, status_in(&body).as_str()), (418, "ERROR"));
        let (http, body) = call(served.addr, "panic", "oh").await;
        assert_eq!((http, status_in(&body).as_str()), (500, "PANIC"));
        let (http, body) = call(served.addr, "nobody", "").await;
        assert_eq!((http, status_in(&body).as_str()), (404, "NOT_FOUND"));
        // Time enough for it to begin: what waits past its deadline is EXPIRED.
        let mut late = request(served.addr, "sleep_spin", ENDLESS);
        late.headers_mut().insert("x-microfaas-deadline-ms", "3000".parse().unwrap());
        let (http, _, body) = send(late).await;
        assert_eq!((http, status_in(&body).as_str()), (504, "TIMEOUT"));
        // The worker goes on.
        assert_eq!(call(served.addr, "echo", "still").await, (200, "still".into()));
    });
}

#[test]
fn metadata_both_ways() {
    run(async {
        let served = serve(|node| node).await;
        let mut sent = request(served.addr, "reverse_meta/below?q=1", "");
        sent.headers_mut().insert("x-own", "J\u{fc}rgen".parse().unwrap());
        let (http, headers, _) = send(sent).await;
        assert_eq!(http, 200);
        assert_eq!(headers["meta-path"], "/below?q=1");
        assert_eq!(headers["meta-method"], "POST");
        assert_eq!(headers["meta-x-own"], "J\u{fc}rgen");
    });
}

#[test]
fn many_at_once_over_one_connection() {
    run(async {
        let served = serve(|node| node).await;
        let stream = TcpStream::connect(served.addr).await.unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let calls: Vec<_> = (0..64)
            .map(|i| {
                let mut sender = sender.clone();
                let sent = request(served.addr, "echo", format!("call {i}"));
                tokio::spawn(async move {
                    let response = sender.send_request(sent).await.unwrap();
                    response.into_body().collect().await.unwrap().to_bytes()
                })
            })
            .collect();
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), format!("call {i}"));
        }
    });
}

#[test]
fn no_slot_is_free() {
    run(async {
        let served = serve(|node| endless(node).slots(2, 0)).await;
        // Two calls hold the two slots, for longer than any machine needs to refuse a third.
        let busy: Vec<_> = (0..2).map(|_| tokio::spawn(call(served.addr, "sleep_spin", "4000000"))).collect();
        while served.node.stats().outstanding < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (http, headers, body) = send(request(served.addr, "echo", "")).await;
        assert_eq!((http, status_in(&body).as_str()), (503, "OVERLOADED"));
        assert_eq!(headers["retry-after"], "1");
        for call in busy {
            assert_eq!(call.await.unwrap().0, 200);
        }
    });
}

#[test]
fn a_queued_call_whose_client_is_gone_never_runs() {
    run(async {
        // A quantum that no call of this test uses up, so that the second call queues behind the first.
        let limits = Limits { quantum_ns: 5_000_000_000, budget_ns: 5_000_000_000, ..Limits::default() };
        let served =
            serve(|node| node.function("sleep_spin", FunctionConfig::default().limits(limits))).await;
        let first = tokio::spawn(call(served.addr, "sleep_spin", "500000"));
        while served.node.stats().outstanding < 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Would hold the worker up for longer than the last call waits.
        let second = tokio::spawn(call(served.addr, "sleep_spin", "60000000"));
        while served.node.stats().outstanding < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        let mut last = request(served.addr, "echo", "served");
        last.headers_mut().insert("x-microfaas-deadline-ms", "20000".parse().unwrap());
        let (http, _, body) = send(last).await;
        assert_eq!((http, &body[..]), (200, &b"served"[..]));
        assert_eq!(first.await.unwrap().0, 200);
        assert_eq!(served.node.stats().completed(Status::Ok), 2);
    });
}

#[test]
fn a_worker_that_dies() {
    run(async {
        let served = serve(endless).await;
        let running = tokio::spawn(call(served.addr, "sleep_spin", ENDLESS));
        while served.node.stats().outstanding < 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // A call that never started would be given to the next worker. Neither function has used anything, so they begin in the order in which they came.
        assert_eq!(call(served.addr, "echo", "behind it").await.0, 200);
        let pid = served.node.workers()[0].pid.unwrap();
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
        let (http, body) = running.await.unwrap();
        assert_eq!((http, status_in(&body).as_str()), (502, "WORKER_LOST"));
        // Its place is taken.
        loop {
            let (http, body) = call(served.addr, "echo", "again").await;
            match http {
                200 => break assert_eq!(body, "again"),
                _ => assert_eq!(status_in(&body), "OVERLOADED"),
            }
        }
    });
}

#[test]
fn curl_speaks_both_versions() {
    run(async {
        let served = serve(|node| node).await;
        for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
            let url = format!("http://{}/fn/echo", served.addr);
            let curl = tokio::task::spawn_blocking(move || {
                let args = [
                    "--silent",
                    "--max-time",
                    "20",
                    flag,
                    "--data-binary",
                    "hi ",
                    "--write-out",
                    "%{http_version} %{http_code}",
                    &url,
                ];
                Command::new("curl").args(args).output()
            });
            let output = curl.await.unwrap().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("hi {version} 200"));
        }
    });
}
