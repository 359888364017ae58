//! The limit on request bodies, however they come.

use std::sync::atomic::Ordering;
use std::time::Duration;

use microfaas_http::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{call, raw};
use crate::fake::{run, serve};

fn limited(body_bytes_max: usize) -> Config {
    Config { body_bytes_max, ..Config::default() }
}

#[test]
fn the_limit_is_exact() {
    run(async {
        let served = serve(limited(100_000)).await;
        let got = call(served.addr, "POST", "/fn/echo", &vec![7; 100_000]).await;
        assert_eq!((got.http, got.body.len()), (200, 100_000));
        let got = call(served.addr, "POST", "/fn/echo", &vec![7; 100_001]).await;
        assert_eq!((got.http, got.error().0.as_str()), (413, "TOO_LARGE"));
        assert_eq!(served.fake.submitted.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn an_announced_body_is_refused_before_it_comes() {
    run(async {
        let served = serve(limited(10)).await;
        // Nothing of the body is ever sent: only the announcement can be the reason.
        let answer = raw(
            served.addr,
            b"POST /fn/echo HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n",
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    });
}

#[test]
fn an_endless_chunked_body_is_cut() {
    run(async {
        let served = serve(limited(10_000)).await;
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        stream
            .write_all(b"POST /fn/echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
        let (mut read, mut write) = stream.into_split();
        // Sends for ever; ends only because the gateway closes.
        let endless = tokio::spawn(async move { while write.write_all(&chunk).await.is_ok() {} });
        let mut head = [0; 12];
        read.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 413");
        endless.await.unwrap();
        assert_eq!(served.fake.submitted.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn expect_100_continue() {
    run(async {
        let served = serve(limited(10)).await;
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        stream
            .write_all(b"POST /fn/echo HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"ok").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with("\r\n\r\nok"), "{rest}");
    });
}

#[test]
fn a_body_that_stops_coming() {
    run(async {
        let served = serve(Config { body_timeout: Duration::from_millis(50), ..Config::default() }).await;
        let answer =
            raw(served.addr, b"POST /fn/echo HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nab").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert_eq!(served.fake.submitted.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_body_that_drips() {
    run(async {
        let served = serve(Config { body_timeout: Duration::from_millis(100), ..Config::default() }).await;
        let (mut read, mut write) = TcpStream::connect(served.addr).await.unwrap().into_split();
        write
            .write_all(b"POST /fn/echo HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n")
            .await
            .unwrap();
        // Ends only because the gateway closes.
        let endless = tokio::spawn(async move {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let mut head = [0; 12];
        read.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 408");
        drop(read);
        endless.await.unwrap();
        assert_eq!(served.fake.submitted.load(Ordering::SeqCst), 0);
    });
}

/// Whoever sends all of it before anything is read gets the answer, too.
#[test]
fn a_refusal_that_needs_no_body_reaches_who_sends_one() {
    run(async {
        let served = serve(Config::default()).await;
        for (target, http) in [("/nothing", "404"), ("/healthz", "405"), ("/fn/echo", "400")] {
            let mut stream = TcpStream::connect(served.addr).await.unwrap();
            let head = format!(
                "POST {target} HTTP/1.1\r\nhost: h\r\nx-microfaas-deadline-ms: soon\r\ncontent-length: 300000\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&[b'x'; 300_000]).await.unwrap();
            // The connection goes on.
            stream
                .write_all(b"GET /fn/meta.418 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {http} ")), "{answer}");
            assert!(answer.contains("HTTP/1.1 418 "), "{answer}");
        }
    });
}

#[test]
fn a_body_that_is_coded_otherwise() {
    run(async {
        let served = serve(Config::default()).await;
        for coding in ["gzip, chunked", "chunked, chunked"] {
            let sent = format!(
                "POST /fn/echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: {coding}\r\n\r\n1\r\na\r\n0\r\n\r\n"
            );
            let answer = raw(served.addr, sent.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 501 ") && answer.contains(coding), "{answer}");
        }
        // A length beside it is nothing, and nothing of what follows is taken for a request.
        let both = b"POST /fn/echo HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /fn/meta.418 HTTP/1.1\r\nhost: h\r\n\r\n";
        let answer = raw(served.addr, both).await;
        assert_eq!(served.fake.submitted.load(Ordering::SeqCst), 1);
        assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("x-seen-content-length"), "{answer}");
    });
}

#[test]
fn a_body_with_broken_framing() {
    run(async {
        let served = serve(Config::default()).await;
        let answer = raw(
            served.addr,
            b"POST /fn/echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        // What is wrong is said, and that the connection ends.
        assert!(answer.contains("chunk size") && answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(served.fake.submitted.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn large_bodies_have_a_limit_together() {
    run(async {
        let config = Config { body_bytes_max: 100_000, bodies_bytes_max: 150_000, ..Config::default() };
        let served = serve(config).await;
        // The first is only half there, so there is no room for a second large one, but for any number of small ones.
        let half = async || {
            let mut first = TcpStream::connect(served.addr).await.unwrap();
            let head = b"POST /fn/echo HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n";
            first.write_all(head).await.unwrap();
            first.write_all(&[1; 50_000]).await.unwrap();
            first
        };
        let mut first = half().await;
        loop {
            let got = call(served.addr, "POST", "/fn/echo", &vec![2; 100_000]).await;
            if got.http == 503 {
                assert_eq!((got.error().0.as_str(), got.header("retry-after")), ("OVERLOADED", "1"));
                break;
            }
            // The second was there before the first: if that made the server refuse the first, there is an answer to it already.
            if first.try_read(&mut [0; 1]).is_ok() {
                first = half().await;
            }
        }
        assert_eq!(call(served.addr, "POST", "/fn/echo", &vec![3; 65_536]).await.http, 200);
        first.write_all(&[1; 50_000]).await.unwrap();
        let mut head = [0; 12];
        first.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        assert_eq!(call(served.addr, "POST", "/fn/echo", &vec![4; 100_000]).await.http, 200);
    });
}
