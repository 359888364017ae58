//! Listening, connections, and stopping.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use socket2::SockRef;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::config::{Config, ConfigError};
use crate::first_bytes::FirstBytes;
use crate::outgoing::{Outgoing, Watched};
use crate::service::Service;

/// After `accept` failed for want of descriptors or memory: a moment in which some may come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// An HTTP/2 peer that is silent for the first is asked, and after the second taken for dead.
const PING_AFTER: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// Bytes that a connection's socket holds beside those that are under way to the client, before it takes no more. Without this limit it holds megabytes, and takes more only when
/// a third of them is gone: a client that reads slowly would look like one that does not read.
const UNSENT_BYTES: u32 = 128 << 10;

/// A gateway that listens.
#[derive(Debug)]
pub struct Gateway<B> {
    listener: TcpListener,
    local_addr: SocketAddr,
    service: Arc<Service<B>>,
}

/// Why a gateway could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The address cannot be listened on: another process does, it is not ours, or not allowed.
    #[error("cannot listen on {addr}: {}", os_text(source))]
    Bind {
        /// The address, as given.
        addr: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// A setting that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// How [`Gateway::serve`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were cut because their requests did not end in time.
    pub connections_cut: usize,
}

/// Opens a port: `127.0.0.1:8080`, or port 0 for any free one. From now on the kernel queues connections.
///
/// Apart from [`Gateway::new`], so that a busy port is known before a node is started.
///
/// # Errors
/// [`GatewayError::Bind`].
pub async fn listen(addr: &str) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(addr).await.map_err(|source| GatewayError::Bind { addr: addr.to_owned(), source })
}

impl<B: Backend> Gateway<B> {
    /// Listens on `addr` and makes a gateway of it: [`listen`], then [`new`](Self::new).
    ///
    /// # Errors
    /// A busy or impossible address, or a setting that cannot be; nothing is left open.
    pub async fn bind(addr: &str, config: Config, backend: Arc<B>) -> Result<Self, GatewayError> {
        config.check()?;
        Self::new(listen(addr).await?, config, backend)
    }

    /// A gateway on an open port. Nothing is accepted before [`serve`](Self::serve).
    ///
    /// # Errors
    /// A setting that cannot be, or a socket that does not listen.
    pub fn new(listener: TcpListener, config: Config, backend: Arc<B>) -> Result<Self, GatewayError> {
        config.check()?;
        let local_addr = listener
            .local_addr()
            .map_err(|source| GatewayError::Bind { addr: "the socket".to_owned(), source })?;
        Ok(Self { listener, local_addr, service: Arc::new(Service::new(backend, config)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is done; then closes the port, lets requests in flight finish for
    /// [`Config::stop_timeout`], and cuts what is left, which takes their calls back.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Stopped {
        let Self { listener, service, .. } = self;
        let builder = Arc::new(connection_builder(service.config()));
        let permits = Arc::new(Semaphore::new(service.config().connections_max));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);

        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener, &permits) => accepted,
            };
            let (stream, peer, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            set_up(&stream);
            let (head_timeout, write_timeout) =
                (service.config().head_timeout, service.config().write_timeout);
            let outgoing = Arc::new(Outgoing::default());
            let stream = Watched::new(FirstBytes::new(stream, head_timeout), Arc::clone(&outgoing));
            let io = TokioIo::new(stream);
            let (service, answers) = (Arc::clone(&service), Arc::clone(&outgoing));
            let handler = service_fn(move |request| {
                let (service, answers) = (Arc::clone(&service), Arc::clone(&answers));
                async move { Ok::<_, std::convert::Infallible>(service.handle(peer, request, &answers).await) }
            });
            let connection = graceful.watch(builder.serve_connection(io, handler).into_owned());
            connections.spawn(async move {
                tokio::select! {
                    ended = connection => {
                        if let Err(error) = ended {
                            tracing::debug!(%peer, %error, "a connection broke");
                        }
                    }
                    () = outgoing.stalled(write_timeout) => {
                        tracing::info!(%peer, "a client does not read its answers, its connection is cut");
                    }
                }
                drop(permit);
            });
        }

        drop(listener);
        let stop_timeout = service.config().stop_timeout;
        match tokio::time::timeout(stop_timeout, graceful.shutdown()).await {
            // The connections have ended, their tasks are about to.
            Ok(()) => while connections.join_next().await.is_some() {},
            Err(_) => {
                let timeout_ms = u64::try_from(stop_timeout.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(timeout_ms, "requests did not end in time");
            }
        }
        while connections.try_join_next().is_some() {}
        let connections_cut = connections.len();
        connections.shutdown().await;
        Stopped { connections_cut }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

/// Does without what the kernel refuses: a client that hangs up at once, for one, has lost nothing.
fn set_up(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

fn connection_builder(config: &Config) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(config.head_bytes_max)
        .max_headers(microfaas_node::message::PAIRS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.head_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN);
    builder
}

/// The kernel's words, without the number.
fn os_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_holds_little_that_is_not_sent() {
        let listener = listen("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _, _) = accept(&listener, &Arc::new(Semaphore::new(1))).await.unwrap();
        set_up(&stream);
        assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
        assert!(stream.nodelay().unwrap());
    }
}
