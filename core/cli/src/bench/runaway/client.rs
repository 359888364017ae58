//! A client with one connection that is kept alive.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::bench::stopped;
use crate::failure::Failure;

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await.map_err(stopped)?;
        stream.set_nodelay(true).map_err(stopped)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(stopped)?;
        // Ends with the connection; who sends hears of it.
        tokio::spawn(connection);
        Ok(Self { sender, address })
    }

    /// Status and body of the answer.
    pub(super) async fn post(&mut self, path: &str, body: Vec<u8>) -> Result<(StatusCode, Vec<u8>), Failure> {
        let request = Request::post(path).header("host", self.address.to_string());
        let request = request.body(Full::new(Bytes::from(body))).map_err(stopped)?;
        self.sender.ready().await.map_err(stopped)?;
        let response = self.sender.send_request(request).await.map_err(stopped)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(stopped)?;
        Ok((status, body.to_bytes().to_vec()))
    }
}
