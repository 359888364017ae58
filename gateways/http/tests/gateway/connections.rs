//! Connections: kept alive, shared by streams, counted, and closed when they say nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use microfaas_http::{Config, ConfigError, Gateway, GatewayError, Route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Got, call, h2c, http1, raw, request};
use crate::fake::{Fake, FakeNode, run, serve};

#[test]
fn one_connection_many_requests() {
    run(async {
        let served = serve(Config::default()).await;
        let mut client = http1(served.addr).await;
        for i in 0..100_u32 {
            // Errors keep the connection, too.
            let (target, http) = if i % 3 == 0 { ("/fn/nobody", 404) } else { ("/fn/echo", 200) };
            let body = i.to_string();
            client.ready().await.unwrap();
            let sent = request(served.addr, "POST", target, body.as_bytes());
            let got = Got::of(client.send_request(sent).await.unwrap()).await;
            assert_eq!(got.http, http);
            assert_eq!(got.body == body, http == 200);
        }
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let served = serve(Config::default()).await;
        let answer = raw(
            served.addr,
            b"GET /fn/meta.201 HTTP/1.1\r\nhost: h\r\n\r\n\
              GET /fn/meta.202 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
        )
        .await;
        let first = answer.find("HTTP/1.1 201 ").unwrap();
        assert!(answer.find("HTTP/1.1 202 ").unwrap() > first, "{answer}");
    });
}

#[test]
fn streams_do_not_wait_for_each_other() {
    run(async {
        let served = serve(Config::default()).await;
        let mut client = h2c(served.addr).await;
        let uri = |target: &str| format!("http://{}{target}", served.addr);
        let held = client.send_request(request(served.addr, "GET", &uri("/fn/hold"), b""));
        let held = tokio::spawn(held);
        served.fake.until(|fake| &fake.submitted, 1).await;
        let quick = client.send_request(request(served.addr, "POST", &uri("/fn/echo"), b"quick"));
        assert_eq!(Got::of(quick.await.unwrap()).await.body, "quick");
        served.fake.release();
        assert_eq!(Got::of(held.await.unwrap().unwrap()).await.body, "released");
    });
}

/// Long enough for a client that sends its head at once, on any machine.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);

/// Reads until the gateway closes.
async fn closed(addr: SocketAddr, sent: &[u8]) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[test]
fn a_head_that_does_not_come() {
    run(async {
        let served = serve(Config { head_timeout: HEAD_TIMEOUT, ..Config::default() }).await;
        // The last is a connection that was used and is idle then.
        let sent = [
            &b""[..],
            b"PRI * HTT",
            b"GET /fn/echo HT",
            b"GET /fn/echo HTTP/1.1\r\nx: ",
            b"GET /fn/echo HTTP/1.1\r\nhost: h\r\n\r\n",
        ];
        let clients = sent.map(|sent| tokio::spawn(closed(served.addr, sent)));
        for client in clients {
            client.await.unwrap();
        }
        assert_eq!(call(served.addr, "GET", "/fn/echo", b"").await.http, 200);
    });
}

/// Something comes all the time, in lines of their own so that every piece is valid, and the end never.
async fn drips(addr: SocketAddr, begin: &[u8]) {
    let (mut read, mut write) = TcpStream::connect(addr).await.unwrap().into_split();
    write.write_all(begin).await.unwrap();
    let drip: &[u8] = if begin.is_empty() { b"\r\n" } else { b"x: y\r\n" };
    // Ends only because the gateway closes.
    let endless = tokio::spawn(async move {
        while write.write_all(drip).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = read.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    endless.await.unwrap();
}

#[test]
fn a_head_that_drips() {
    run(async {
        let served = serve(Config { head_timeout: HEAD_TIMEOUT, ..Config::default() }).await;
        let begin: [&[u8]; 3] = [b"GET /fn/echo HTTP/1.1\r\nhost: h\r\n", b"GET /fn/echo HTTP/1.1\r\n", b""];
        for client in begin.map(|begin| tokio::spawn(drips(served.addr, begin))) {
            client.await.unwrap();
        }
        assert_eq!(served.fake.submitted.load(Ordering::SeqCst), 0);
        assert_eq!(call(served.addr, "GET", "/fn/echo", b"").await.http, 200);
    });
}

#[test]
fn a_head_that_is_too_large() {
    run(async {
        let served = serve(Config { head_bytes_max: 8192, ..Config::default() }).await;
        let head = format!("GET /fn/echo HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "v".repeat(9000));
        let answer = raw(served.addr, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    });
}

#[test]
fn more_connections_than_allowed_wait() {
    run(async {
        let served = serve(Config { connections_max: 1, ..Config::default() }).await;
        let mut first = http1(served.addr).await;
        let sent = request(served.addr, "GET", "/fn/echo", b"");
        Got::of(first.send_request(sent).await.unwrap()).await;
        let second = tokio::spawn(async move { call(served.addr, "GET", "/fn/echo", b"").await.http });
        // The second cannot be answered while the first is open.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(second.await.unwrap(), 200);
    });
}

#[test]
fn a_busy_port_is_named() {
    run(async {
        let served = serve(Config::default()).await;
        let addr = served.addr.to_string();
        let node = Arc::new(FakeNode(Arc::new(Fake::default())));
        let error = Gateway::bind(&addr, Config::default(), node).await.unwrap_err();
        assert!(matches!(error, GatewayError::Bind { .. }));
        assert_eq!(error.to_string(), format!("cannot listen on {addr}: another process listens there"));
    });
}

#[test]
fn settings_that_cannot_be() {
    run(async {
        let refused = |config| async {
            let node = Arc::new(FakeNode(Arc::new(Fake::default())));
            match Gateway::bind("127.0.0.1:0", config, node).await.unwrap_err() {
                GatewayError::Config(error) => error,
                other => panic!("{other}"),
            }
        };
        let twice = vec![Route::new("*", "/a", "x").unwrap(), Route::new("*", "/a/", "y").unwrap()];
        assert_eq!(
            refused(Config { routes: twice, ..Config::default() }).await,
            ConfigError::DuplicateRoute("/a".to_owned())
        );
        assert_eq!(
            refused(Config { connections_max: 0, ..Config::default() }).await,
            ConfigError::NoConnections
        );
        assert_eq!(
            refused(Config { head_bytes_max: 1, ..Config::default() }).await,
            ConfigError::HeadBytes(1)
        );
        assert_eq!(
            refused(Config { bodies_bytes_max: 1, body_bytes_max: 2, ..Config::default() }).await,
            ConfigError::BodiesBytes { all: 1, one: 2 }
        );
        for write_timeout in [Duration::ZERO, Duration::MAX] {
            assert_eq!(
                refused(Config { write_timeout, ..Config::default() }).await,
                ConfigError::WriteTimeout(write_timeout)
            );
        }
        assert_eq!(Route::new("TRACE", "/", "x"), Err(ConfigError::Method("TRACE".to_owned())));
        assert_eq!(Route::new("GET", "a", "x"), Err(ConfigError::Path("a".to_owned())));
    });
}
