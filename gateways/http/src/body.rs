//! Collecting a request body, up to a limit.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes that are still read and thrown away after a refusal, and for how long: a client that is cut off while it
/// sends would never read the refusal.
const LINGER_BYTES: usize = 4 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// What must come in time, or the end: a client that sends a byte now and then would keep its share of the budget for all bodies as long as it likes.
const PIECE_BYTES: usize = 64 << 10;

/// Why a body could not be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Over the limit; the rest is unread.
    TooLarge,
    /// Too little came for too long.
    Stalled,
    /// The client broke off, or its framing is wrong: the reason.
    Broken(String),
}

/// Reads a body of at most `limit` bytes, waiting at most `patience` for each [`PIECE_BYTES`] and for what is left.
///
/// # Cost
/// A body that came in one piece is not copied.
pub(crate) async fn read<B>(body: &mut B, limit: usize, patience: Duration) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut by = Instant::now() + patience;
    let Some(first) = next(body, by).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    // What is announced is trusted up to the limit only, and memory comes as the bytes do.
    let mut all = Vec::with_capacity(first.len().max(announced.min(64 << 10).try_into().unwrap_or(0)));
    all.extend_from_slice(&first);
    let mut due = PIECE_BYTES;
    loop {
        if all.len() >= due {
            (due, by) = (all.len() + PIECE_BYTES, Instant::now() + patience);
        }
        let Some(piece) = next(body, by).await? else { break };
        if piece.len() > limit - all.len() {
            return Err(BodyError::TooLarge);
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

/// Reads on for a while, so that the refusal reaches a client that sends before it reads.
pub(crate) async fn linger<B>(mut body: B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let drain = async {
        let mut left = LINGER_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(left) => left,
                None => break,
            };
        }
    };
    // Either end will do: whoever still sends is cut off.
    let _ = timeout(LINGER, drain).await;
}

/// The next piece of data; trailers are skipped.
async fn next<B>(body: &mut B, by: Instant) -> Result<Option<Bytes>, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    loop {
        match timeout_at(by, body.frame()).await {
            Err(_) => return Err(BodyError::Stalled),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(BodyError::Broken(reason(&error))),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// What is at the bottom of it: the outer errors say only that a body was being read.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use hyper::body::{Frame, SizeHint};
    use tokio::time::{Sleep, sleep};

    /// Pieces, then the end or silence; counts what was taken.
    struct Pieces {
        left: VecDeque<&'static [u8]>,
        hint: SizeHint,
        then_silence: bool,
    }

    fn pieces(list: &[&'static [u8]]) -> Pieces {
        Pieces { left: list.iter().copied().collect(), hint: SizeHint::default(), then_silence: false }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            match self.left.pop_front() {
                Some(b"!") => Poll::Ready(Some(Err(std::io::Error::other("reset")))),
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece))))),
                None if self.then_silence => Poll::Pending,
                None => Poll::Ready(None),
            }
        }

        fn size_hint(&self) -> SizeHint {
            self.hint
        }
    }

    async fn read_all(body: &mut Pieces, limit: usize) -> Result<Bytes, BodyError> {
        read(body, limit, Duration::from_millis(20)).await
    }

    #[tokio::test(start_paused = true)]
    async fn up_to_the_limit() {
        assert_eq!(read_all(&mut pieces(&[]), 0).await.unwrap(), "");
        assert_eq!(read_all(&mut pieces(&[b"abc"]), 3).await.unwrap(), "abc");
        assert_eq!(read_all(&mut pieces(&[b"ab", b"", b"c"]), 3).await.unwrap(), "abc");
        assert_eq!(read_all(&mut pieces(&[b"abcd"]), 3).await, Err(BodyError::TooLarge));
    }

    #[tokio::test(start_paused = true)]
    async fn not_read_past_the_limit() {
        let mut body = pieces(&[b"ab", b"cd", b"ef", b"gh"]);
        assert_eq!(read_all(&mut body, 3).await, Err(BodyError::TooLarge));
        assert_eq!(body.left.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_size_is_refused_unread() {
        let mut body = pieces(&[b"ab"]);
        body.hint = SizeHint::with_exact(4);
        assert_eq!(read_all(&mut body, 3).await, Err(BodyError::TooLarge));
        assert_eq!(body.left.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_breaks() {
        let mut body = pieces(&[b"ab"]);
        body.then_silence = true;
        assert_eq!(read_all(&mut body, 3).await, Err(BodyError::Stalled));
        assert_eq!(read_all(&mut pieces(&[b"a", b"!"]), 3).await, Err(BodyError::Broken("reset".to_owned())));
    }

    /// Pieces of this many bytes, each after this time.
    struct Drips(VecDeque<usize>, Duration, Pin<Box<Sleep>>);

    impl Body for Drips {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            ready!(self.2.as_mut().poll(cx));
            self.2 = Box::pin(sleep(self.1));
            let piece = self.0.pop_front();
            Poll::Ready(piece.map(|len| Ok(Frame::data(Bytes::from(vec![0; len])))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips() {
        let (patience, pause) = (Duration::from_secs(30), Duration::from_secs(9));
        let read = async |pieces: &[usize]| {
            let mut body = Drips(pieces.iter().copied().collect(), pause, Box::pin(sleep(pause)));
            super::read(&mut body, 1 << 20, patience).await.map(|body| body.len())
        };
        // Each 64 KiB has its own time, however many there are.
        assert_eq!(read(&[32 << 10; 20]).await, Ok(20 * (32 << 10)));
        assert_eq!(read(&[1; 2]).await, Ok(2));
        assert_eq!(read(&[1; 3]).await, Err(BodyError::Stalled), "the end comes too late");
        assert_eq!(read(&[32 << 10, 32 << 10, 1, 1, 1, 1]).await, Err(BodyError::Stalled));
    }
}
