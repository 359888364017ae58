//! What waits to be sent, and clients that do not read.
//!
//! A client that asks and does not read its answers would hold a connection, and what was answered, for ever: on HTTP/1 the socket takes no more, on HTTP/2 a client may
//! besides leave the window of a stream closed and be well otherwise. So each connection knows since when each of its answers has not got on, and is cut where that
//! takes too long. The answer's memory knows the same, and what it holds of the budget for all answers, until its last byte has been handed to the kernel.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

/// An answer is handed over in pieces of this size, as the client takes them.
const PIECE: usize = 64 << 10;

/// What waits on one connection.
#[derive(Debug, Default)]
pub(crate) struct Outgoing(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Since when the socket has taken nothing.
    blocked: Option<Instant>,
    /// Answers by number, and when each has last got on.
    answers: Vec<(u64, Instant)>,
    next: u64,
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) -> u64 {
        let mut waiting = self.lock();
        waiting.next += 1;
        let number = waiting.next;
        waiting.answers.push((number, Instant::now()));
        number
    }

    fn got_on(&self, number: u64) {
        let now = Instant::now();
        if let Some((_, since)) = self.lock().answers.iter_mut().find(|(of, _)| *of == number) {
            *since = now;
        }
    }

    fn remove(&self, number: u64) {
        let answers = &mut self.lock().answers;
        if let Some(at) = answers.iter().position(|(of, _)| *of == number) {
            answers.swap_remove(at);
        }
    }

    fn oldest(&self) -> Option<Instant> {
        let waiting = self.lock();
        waiting.answers.iter().map(|(_, since)| *since).chain(waiting.blocked).min()
    }

    /// Returns when something has waited for so long without getting on, or twice as long. `patience` is not zero.
    pub(crate) async fn stalled(&self, patience: Duration) {
        loop {
            let waited = self.oldest().map_or(Duration::ZERO, |since| since.elapsed());
            if waited >= patience {
                return;
            }
            sleep(patience.saturating_sub(waited)).await;
        }
    }
}

/// An answer's memory, until nobody refers to it any more.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    connection: Arc<Outgoing>,
    number: u64,
    _budget: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.remove(self.number);
    }
}

/// The body of an answer.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    left: Bytes,
    /// Where it has to be looked after, which an empty one has not.
    waits: Option<(Arc<Outgoing>, u64)>,
}

impl Answered {
    pub(crate) fn new(
        bytes: Bytes,
        connection: &Arc<Outgoing>,
        budget: Option<OwnedSemaphorePermit>,
    ) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        let number = connection.add();
        let held = Held { bytes, connection: Arc::clone(connection), number, _budget: budget };
        Self { left: Bytes::from_owner(held), waits: Some((Arc::clone(connection), number)) }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let len = self.left.len().min(PIECE);
        if len == 0 {
            return Poll::Ready(None);
        }
        if let Some((connection, number)) = &self.waits {
            connection.got_on(*number);
        }
        let piece = self.left.split_to(len);
        if self.left.is_empty() {
            // The last piece alone holds the memory from here on.
            self.left = Bytes::new();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

/// A connection that notes when it takes no more.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    inner: S,
    outgoing: Arc<Outgoing>,
    is_blocked: bool,
}

impl<S> Watched<S> {
    pub(crate) fn new(inner: S, outgoing: Arc<Outgoing>) -> Self {
        Self { inner, outgoing, is_blocked: false }
    }

    fn note<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() != self.is_blocked {
            self.is_blocked = polled.is_pending();
            self.outgoing.lock().blocked = self.is_blocked.then(Instant::now);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(polled)
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
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn is_stalled_within(outgoing: &Outgoing, time: Duration) -> bool {
        tokio::time::timeout(time, outgoing.stalled(PATIENCE)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_until_its_last_byte_is_gone() {
        let outgoing = Arc::new(Outgoing::default());
        assert!(!is_stalled_within(&outgoing, 100 * PATIENCE).await, "nothing waits");
        let mut body = Answered::new(vec![7; 2 * PIECE].into(), &outgoing, None);
        sleep(PATIENCE / 2).await;
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), PIECE);
        drop(first);
        assert!(!is_stalled_within(&outgoing, PATIENCE * 9 / 10).await, "it got on");
        let last = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.is_end_stream() && body.frame().await.is_none());
        drop(body);
        assert!(is_stalled_within(&outgoing, 2 * PATIENCE).await, "the last piece is not sent");
        drop(last);
        assert!(!is_stalled_within(&outgoing, 100 * PATIENCE).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gets_on_does_not_excuse_another() {
        let outgoing = Arc::new(Outgoing::default());
        let _stuck = Answered::new(vec![1].into(), &outgoing, None);
        let mut moving = Answered::new(vec![2; 10 * PIECE].into(), &outgoing, None);
        let moves = async {
            loop {
                sleep(PATIENCE / 3).await;
                moving.frame().await;
            }
        };
        tokio::select! {
            () = moves => {}
            is_stalled = is_stalled_within(&outgoing, 2 * PATIENCE) => assert!(is_stalled),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_is_noted() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
        let outgoing = Arc::new(Outgoing::default());
        let (mut client, server) = duplex(16);
        let mut server = Watched::new(server, Arc::clone(&outgoing));
        server.write_all(&[0; 16]).await.unwrap();
        assert!(!is_stalled_within(&outgoing, 100 * PATIENCE).await);
        tokio::select! {
            _ = server.write_all(&[0; 16]) => panic!("there is no room"),
            is_stalled = is_stalled_within(&outgoing, 2 * PATIENCE) => assert!(is_stalled),
        }
        client.read_exact(&mut [0; 16]).await.unwrap();
        server.write_all(&[0; 16]).await.unwrap();
        assert!(!is_stalled_within(&outgoing, 100 * PATIENCE).await);
    }
}
