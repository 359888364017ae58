//! Clients that hang up: their calls are taken back.

use microfaas_http::Config;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{call, h2c, request};
use crate::fake::{run, serve};

#[test]
fn a_client_that_closes() {
    run(async {
        let served = serve(Config::default()).await;
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        stream.write_all(b"POST /fn/hold HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        served.fake.until(|fake| &fake.submitted, 1).await;
        drop(stream);
        served.fake.until(|fake| &fake.taken_back, 1).await;
        assert_eq!(call(served.addr, "POST", "/fn/echo", b"on").await.body, "on");
    });
}

#[test]
fn a_stream_that_is_reset() {
    run(async {
        let served = serve(Config::default()).await;
        let mut client = h2c(served.addr).await;
        let target = format!("http://{}/fn/hold", served.addr);
        let held = tokio::spawn(client.send_request(request(served.addr, "GET", &target, b"")));
        served.fake.until(|fake| &fake.submitted, 1).await;
        held.abort();
        served.fake.until(|fake| &fake.taken_back, 1).await;
        // The connection lives on.
        let target = format!("http://{}/fn/echo", served.addr);
        let other = client.send_request(request(served.addr, "GET", &target, b"")).await.unwrap();
        assert_eq!(other.status(), 200);
    });
}

#[test]
fn a_client_that_leaves_before_its_body() {
    run(async {
        let served = serve(Config::default()).await;
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        stream.write_all(b"POST /fn/echo HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nab").await.unwrap();
        drop(stream);
        // Had it been submitted, this would be the second.
        assert_eq!(call(served.addr, "POST", "/fn/echo", b"").await.http, 200);
        assert_eq!(served.fake.submitted.load(std::sync::atomic::Ordering::SeqCst), 1);
    });
}
