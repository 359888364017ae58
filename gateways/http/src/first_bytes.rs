//! A limit on the time until a connection shows its version.
//!
//! The server has to see whether a connection begins with HTTP/2's preface before it can hand it to one of two
//! parsers, each with timeouts of its own. Until then nothing limits a client that connects and says
//! nothing; this wrapper does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Fails with `TimedOut` when the version is not clear in time; after that it only passes on.
#[derive(Debug)]
pub(crate) struct FirstBytes<S> {
    inner: S,
    /// Bytes that agree with the preface so far.
    matched: usize,
    /// None once the version is clear.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<S> FirstBytes<S> {
    /// Call within a runtime that has timers.
    pub(crate) fn new(inner: S, limit: Duration) -> Self {
        Self { inner, matched: 0, limit: Some(Box::pin(sleep(limit))) }
    }

    fn look_at(&mut self, new: &[u8]) {
        let expected = &PREFACE[self.matched..];
        let agreeing = new.iter().zip(expected).take_while(|(a, b)| a == b).count();
        self.matched += agreeing;
        if agreeing < new.len() || self.matched == PREFACE.len() {
            self.limit = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if self.limit.is_none() {
            return polled;
        }
        match polled {
            Poll::Ready(done) => {
                self.look_at(&buf.filled()[before..]);
                Poll::Ready(done)
            }
            Poll::Pending => match self.limit.as_mut().map(|limit| limit.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                _ => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    async fn kind_after(sent: &[u8]) -> Option<io::ErrorKind> {
        let (mut client, server) = duplex(64);
        client.write_all(sent).await.unwrap();
        let mut server = FirstBytes::new(server, Duration::from_millis(10));
        let mut got = vec![0; sent.len()];
        server.read_exact(&mut got).await.unwrap();
        // Silence from here on: only the limit can end this read.
        match tokio::time::timeout(Duration::from_millis(100), server.read_u8()).await {
            Ok(read) => Some(read.unwrap_err().kind()),
            Err(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_until_the_version_is_clear() {
        for unclear in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
            assert_eq!(kind_after(unclear).await, Some(io::ErrorKind::TimedOut), "{unclear:?}");
        }
        for clear in [&b"G"[..], b"PO", PREFACE] {
            assert_eq!(kind_after(clear).await, None, "{clear:?}");
        }
    }
}
