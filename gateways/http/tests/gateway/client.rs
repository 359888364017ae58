//! Clients: one that knows HTTP, and one that sends whatever bytes it is given.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) type Sent = Request<Full<Bytes>>;

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) http: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) async fn of<B>(response: Response<B>) -> Self
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { http: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error in the body; checks what every error must have.
    pub(crate) fn error(&self) -> (String, String) {
        assert_eq!(self.header("content-type"), "application/json");
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let error = |key: &str| body["error"][key].as_str().unwrap().to_owned();
        assert_eq!(error("request_id"), self.header("x-request-id"));
        (error("status"), error("message"))
    }
}

pub(crate) fn request(addr: SocketAddr, method: &str, target: &str, body: &[u8]) -> Sent {
    let body = Full::new(Bytes::copy_from_slice(body));
    Request::builder().method(method).uri(target).header("host", addr.to_string()).body(body).unwrap()
}

pub(crate) async fn http1(addr: SocketAddr) -> http1::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn h2c(addr: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// One request on its own connection.
pub(crate) async fn send(addr: SocketAddr, request: Sent) -> Got {
    Got::of(http1(addr).await.send_request(request).await.unwrap()).await
}

pub(crate) async fn call(addr: SocketAddr, method: &str, target: &str, body: &[u8]) -> Got {
    send(addr, request(addr, method, target, body)).await
}

/// Sends bytes as they are and reads until the server closes.
pub(crate) async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}
