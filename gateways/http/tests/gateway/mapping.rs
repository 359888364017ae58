//! What a function gets of a request, and what a client gets of each way a call can end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use microfaas_http::{Config, Route};

use crate::client::{Got, call, h2c, request, send};
use crate::fake::{run, serve};

#[test]
fn a_request_reaches_the_function_whole() {
    run(async {
        let served = serve(Config::default()).await;
        let mut sent = request(served.addr, "PUT", "/fn/echo/a/b?x=1&y=%20", b"body");
        sent.headers_mut().insert("x-own", "J\u{fc}rgen".parse().unwrap());
        sent.headers_mut().insert("x-request-id", "my-id".parse().unwrap());
        let got = send(served.addr, sent).await;
        assert_eq!((got.http, &got.body[..]), (200, &b"body"[..]));
        assert_eq!(got.header("x-request-id"), "my-id");
        assert_eq!(got.header("x-seen-method"), "PUT");
        assert_eq!(got.header("x-seen-path"), "/a/b?x=1&y=%20");
        assert_eq!(got.header("x-seen-authority"), served.addr.to_string());
        assert_eq!(got.header("x-seen-scheme"), "http");
        assert_eq!(got.header("x-seen-x-request-id"), "my-id");
        assert_eq!(got.headers["x-seen-x-own"], "J\u{fc}rgen");
        assert!(!got.headers.contains_key("x-seen-host"));
    });
}

#[test]
fn every_method_of_a_function() {
    run(async {
        let served = serve(Config::default()).await;
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let got = call(served.addr, method, "/fn/echo", b"").await;
            assert_eq!((got.http, got.header("x-seen-method")), (200, method));
        }
        let got = call(served.addr, "TRACE", "/fn/echo", b"").await;
        assert_eq!((got.http, got.error().0.as_str()), (405, "METHOD_NOT_ALLOWED"));
        assert!(got.header("allow").contains("POST"));
    });
}

#[test]
fn http2_maps_to_the_same() {
    run(async {
        let served = serve(Config::default()).await;
        let mut client = h2c(served.addr).await;
        let target = format!("http://{}/fn/echo?q", served.addr);
        let mut sent = request(served.addr, "POST", &target, b"over h2c");
        sent.headers_mut().remove("host");
        let got = Got::of(client.send_request(sent).await.unwrap()).await;
        assert_eq!((got.http, &got.body[..]), (200, &b"over h2c"[..]));
        assert_eq!(got.header("x-seen-authority"), served.addr.to_string());
        assert_eq!(got.header("x-seen-path"), "/?q");

        let head = request(served.addr, "HEAD", &format!("http://{}/fn/meta.200", served.addr), b"");
        let got = Got::of(client.send_request(head).await.unwrap()).await;
        assert_eq!((got.http, got.header("content-length"), got.body.len()), (200, "5", 0));
    });
}

#[test]
fn every_end_of_a_call_has_its_http_status() {
    run(async {
        let served = serve(Config::default()).await;
        let ends = [
            ("OK", 200),
            ("ERROR", 500),
            ("PANIC", 500),
            ("TIMEOUT", 504),
            ("EXPIRED", 504),
            ("CANCELLED", 503),
            ("OOM", 500),
            ("FAULT", 500),
            ("DENIED", 500),
            ("TOO_LARGE", 502),
            ("NOT_FOUND", 404),
            ("LOAD_FAILED", 500),
            ("BANNED", 503),
            ("OVERLOADED", 503),
            ("WORKER_LOST", 502),
        ];
        for (name, http) in ends {
            let got = call(served.addr, "GET", &format!("/fn/end.{name}"), b"").await;
            assert_eq!(got.http, http, "{name}");
            assert!(!got.header("x-request-id").is_empty());
            if name == "OK" {
                continue;
            }
            let (status, message) = got.error();
            assert_eq!(status, name);
            // Only what the function itself answered is the client's to read.
            assert_eq!(message.contains("secret"), name == "ERROR", "{name}: {message}");
            assert_eq!(got.header("retry-after"), if name == "OVERLOADED" { "1" } else { "" }, "{name}");
        }
    });
}

#[test]
fn what_is_not_accepted_says_why() {
    run(async {
        let served = serve(Config::default()).await;
        for (name, http) in
            [("OVERLOADED", 503), ("TOO_LARGE", 413), ("NOT_FOUND", 404), ("BANNED", 503), ("EXPIRED", 504)]
        {
            let got = call(served.addr, "POST", &format!("/fn/refuse.{name}"), b"x").await;
            assert_eq!((got.http, got.error()), (http, (name.to_owned(), "as told".to_owned())));
        }
        let got = call(served.addr, "GET", "/fn/nobody", b"").await;
        assert_eq!((got.http, got.error().0.as_str()), (404, "NOT_FOUND"));
        let got = call(served.addr, "GET", "/elsewhere", b"").await;
        assert_eq!((got.http, got.error().1.as_str()), (404, "nothing is at /elsewhere"));
    });
}

#[test]
fn a_status_of_the_function() {
    run(async {
        let served = serve(Config::default()).await;
        assert_eq!(call(served.addr, "GET", "/fn/meta.418", b"").await.http, 418);
        let got = call(served.addr, "GET", "/fn/meta.204", b"").await;
        assert_eq!((got.http, got.body.len(), got.header("content-length")), (204, 0, ""));
        let got = call(served.addr, "GET", "/fn/meta.999", b"").await;
        assert_eq!((got.http, got.error().0.as_str()), (502, "BAD_RESPONSE"));
    });
}

#[test]
fn panics_are_shown_only_when_configured() {
    run(async {
        let served = serve(Config { expose_panics: true, ..Config::default() }).await;
        let got = call(served.addr, "GET", "/fn/end.PANIC", b"").await;
        assert_eq!(got.error(), ("PANIC".to_owned(), "secret".to_owned()));
    });
}

#[test]
fn configured_routes() {
    run(async {
        let routes = vec![
            Route::new("POST", "/verify", "echo").unwrap(),
            Route::new("*", "/teapot/", "meta.418").unwrap(),
        ];
        let served = serve(Config { routes, ..Config::default() }).await;
        let got = call(served.addr, "POST", "/verify/token?x", b"").await;
        assert_eq!((got.http, got.header("x-seen-path")), (200, "/verify/token?x"));
        let got = call(served.addr, "GET", "/verify", b"").await;
        assert_eq!((got.http, got.header("allow")), (405, "POST"));
        assert_eq!(call(served.addr, "DELETE", "/teapot", b"").await.http, 418);
        assert_eq!(call(served.addr, "GET", "/teapots", b"").await.http, 404);
    });
}

#[test]
fn deadlines() {
    run(async {
        let served = serve(Config { deadline_max: Duration::from_secs(2000), ..Config::default() }).await;
        let with = |value: &str| {
            let mut sent = request(served.addr, "GET", "/fn/deadline", b"");
            sent.headers_mut().insert("x-microfaas-deadline-ms", value.parse().unwrap());
            send(served.addr, sent)
        };
        let ms = |got: Got| str::from_utf8(&got.body).unwrap().parse::<u64>().unwrap();
        assert_eq!(call(served.addr, "GET", "/fn/deadline", b"").await.body, "none");
        // What was spent since the head came is taken off.
        assert!((1..=1_500_000).contains(&ms(with("1500000").await)));
        assert!((1..=2_000_000).contains(&ms(with("60000000").await)));
        assert_eq!(with("soon").await.http, 400);
    });
}

#[test]
fn a_header_that_metadata_cannot_carry() {
    run(async {
        let served = serve(Config::default()).await;
        let mut sent = request(served.addr, "GET", "/fn/echo", b"");
        sent.headers_mut().insert("x", hyper::header::HeaderValue::from_bytes(b"\xff").unwrap());
        let got = send(served.addr, sent).await;
        assert_eq!((got.http, got.error().0.as_str()), (400, "BAD_REQUEST"));
        assert_eq!(served.fake.submitted.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn health() {
    run(async {
        let served = serve(Config::default()).await;
        for (up, http, word) in [(2, 200, "up"), (1, 200, "degraded"), (0, 503, "down")] {
            served.fake.workers_up.store(up, Ordering::SeqCst);
            let got = call(served.addr, "GET", "/healthz", b"").await;
            let body: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
            assert_eq!((got.http, &body["status"], &body["workers_up"]), (http, &word.into(), &up.into()));
        }
    });
}
