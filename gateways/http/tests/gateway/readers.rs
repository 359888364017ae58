//! Clients that do not read what they have asked for, and pages that take long to make.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use microfaas_http::Config;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Sent, call, request};
use crate::fake::{run, serve};

/// More than the kernel holds for a connection.
const HUGE: &str = "/fn/big.33554432";
const LARGE: &str = "/fn/big.700000";
/// How long nobody gets on who does not read; long enough for whoever does, on any machine.
const QUICK: Duration = Duration::from_secs(1);

/// A client whose streams take no body until they are read, and then little at a time.
async fn closed_window(addr: SocketAddr) -> http2::SendRequest<http_body_util::Full<hyper::body::Bytes>> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0).initial_connection_window_size(1 << 30);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(addr: SocketAddr, target: &str) -> Sent {
    request(addr, "GET", &format!("http://{addr}{target}"), b"")
}

#[test]
fn those_who_do_not_read_keep_nobody_out() {
    run(async {
        let config = Config { connections_max: 4, write_timeout: QUICK, ..Config::default() };
        let served = serve(config).await;
        let mut silent = Vec::new();
        for _ in 0..4 {
            let mut stream = TcpStream::connect(served.addr).await.unwrap();
            stream.write_all(format!("GET {HUGE} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
            silent.push(stream);
        }
        served.fake.until(|fake| &fake.submitted, 4).await;
        // It waits for one of their places.
        assert_eq!(call(served.addr, "POST", "/fn/echo", b"mine").await.body, "mine");
        drop(silent);
    });
}

#[test]
fn a_stream_whose_window_stays_closed_is_not_kept_for_ever() {
    run(async {
        let served = serve(Config { write_timeout: QUICK, ..Config::default() }).await;
        let mut client = closed_window(served.addr).await;
        let answer = client.send_request(get(served.addr, "/fn/meta.200")).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.into_body().collect().await.is_err(), "the connection is cut");
    });
}

#[test]
fn one_who_reads_slowly_gets_all_of_it() {
    run(async {
        let served = serve(Config { write_timeout: Duration::from_secs(30), ..Config::default() }).await;
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        let head = format!("GET {HUGE} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
        loop {
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await.unwrap();
            bytes += read;
            if read == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(bytes > 33_554_432, "{bytes}");
    });
}

#[test]
fn answers_that_wait_have_a_limit_together() {
    run(async {
        let config = Config { responses_bytes_max: 1 << 20, ..Config::default() };
        let served = serve(config).await;
        let mut client = closed_window(served.addr).await;
        let held = client.send_request(get(served.addr, LARGE)).await.unwrap();
        let (http, error) = {
            let got = call(served.addr, "GET", LARGE, b"").await;
            (got.http, got.error().0)
        };
        assert_eq!((http, error.as_str()), (503, "RESPONSE_DROPPED"));
        // What is small does not count.
        assert_eq!(call(served.addr, "POST", "/fn/echo", b"small").await.http, 200);
        drop((held, client));
        while call(served.addr, "GET", LARGE, b"").await.http != 200 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }

        // Where no answer that counts has room, nothing is run for nothing.
        let config = Config { responses_bytes_max: 191 << 10, head_bytes_max: 1 << 20, ..Config::default() };
        let served = serve(config).await;
        let mut client = closed_window(served.addr).await;
        let held = client.send_request(get(served.addr, "/fn/big.131072")).await.unwrap();
        let got = call(served.addr, "GET", "/fn/echo", b"").await;
        assert_eq!((got.http, got.error().0.as_str()), (503, "OVERLOADED"));
        assert_eq!(served.fake.submitted.load(Ordering::SeqCst), 1);
        // What the gateway itself answers, as a long page of metrics is, has room: here, that nothing is at this path.
        let got = call(served.addr, "GET", &format!("/{}", "a".repeat(65_480)), b"").await;
        assert!(got.body.len() > 64 << 10, "it counts");
        assert_eq!((got.http, got.error().0.as_str()), (404, "NOT_FOUND"));
        drop(held);
    });
}

#[test]
fn one_answer_alone_always_goes() {
    run(async {
        for responses_bytes_max in [0, 64 << 10] {
            let served = serve(Config { responses_bytes_max, ..Config::default() }).await;
            let got = call(served.addr, "GET", LARGE, b"").await;
            assert_eq!((got.http, got.body.len()), (200, 700_000), "{responses_bytes_max}");
        }
    });
}

#[test]
fn a_page_that_cannot_be_made_is_an_error() {
    run(async {
        let served = serve(Config::default()).await;
        served.fake.breaks_metrics.store(true, Ordering::SeqCst);
        let got = call(served.addr, "GET", "/metrics", b"").await;
        assert_eq!((got.http, got.error().0.as_str()), (500, "METRICS_FAILED"));
        served.fake.breaks_metrics.store(false, Ordering::SeqCst);
        assert_eq!(call(served.addr, "GET", "/metrics", b"").await.http, 200);
    });
}

#[test]
fn a_page_of_metrics_holds_nobody_up() {
    // One thread, as the command has it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let test = async {
            let served = serve(Config::default()).await;
            let making = served.fake.hold_metrics();
            let page = tokio::spawn(call(served.addr, "GET", "/metrics", b""));
            served.fake.until(|fake| &fake.pages, 1).await;
            assert_eq!(call(served.addr, "POST", "/fn/echo", b"on").await.body, "on");
            drop(making);
            assert_eq!(page.await.unwrap().http, 200);
        };
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs");
    });
}
