//! Collecting a request body, up to a limit.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::time::timeout;

/// Bytes that are still read and thrown away after a refusal, and for how long: a client that is cut off while it
/// sends would never read the refusal.
const LINGER_BYTES: usize = 4 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// Why a body could not be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Over the limit; the rest is unread.
    TooLarge,
    /// Nothing came for too long.
    Stalled,
    /// The client broke off, or its framing is wrong: the reason.
    Broken(String),
}

/// Reads a body of at most `limit` bytes, waiting at most `patience` for each piece.
///
/// # Cost
/// A body that came in one piece is not copied.
pub(crate) async fn read<B>(body: &mut B, limit: usize, patience: Duration) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let Some(first) = next(body, patience).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    // What is announced is trusted up to the limit only, and memory comes as the bytes do.
    let mut all = Vec::with_capacity(first.len().max(announced.min(64 << 10).try_into().unwrap_or(0)));
    all.extend_from_slice(&first);
    while let Some(piece) = next(body, patience).await? {
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
async fn next<B>(body: &mut B, patience: Duration) -> Result<Option<Bytes>, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    loop {
        match timeout(patience, body.frame()).await {
            Err(_) => return Err(BodyError::Stalled),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(BodyError::Broken(error.to_string())),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::{Frame, SizeHint};

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
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match self.left.pop_front() {
                Some(b"!") => Poll::Ready(Some(Err("reset"))),
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

    #[tokio::test]
    async fn up_to_the_limit() {
        assert_eq!(read_all(&mut pieces(&[]), 0).await.unwrap(), "");
        assert_eq!(read_all(&mut pieces(&[b"abc"]), 3).await.unwrap(), "abc");
        assert_eq!(read_all(&mut pieces(&[b"ab", b"", b"c"]), 3).await.unwrap(), "abc");
        assert_eq!(read_all(&mut pieces(&[b"abcd"]), 3).await, Err(BodyError::TooLarge));
    }

    #[tokio::test]
    async fn not_read_past_the_limit() {
        let mut body = pieces(&[b"ab", b"cd", b"ef", b"gh"]);
        assert_eq!(read_all(&mut body, 3).await, Err(BodyError::TooLarge));
        assert_eq!(body.left.len(), 2);
    }

    #[tokio::test]
    async fn an_announced_size_is_refused_unread() {
        let mut body = pieces(&[b"ab"]);
        body.hint = SizeHint::with_exact(4);
        assert_eq!(read_all(&mut body, 3).await, Err(BodyError::TooLarge));
        assert_eq!(body.left.len(), 1);
    }

    #[tokio::test]
    async fn a_body_that_stops_or_breaks() {
        let mut body = pieces(&[b"ab"]);
        body.then_silence = true;
        assert_eq!(read_all(&mut body, 3).await, Err(BodyError::Stalled));
        assert_eq!(read_all(&mut pieces(&[b"a", b"!"]), 3).await, Err(BodyError::Broken("reset".to_owned())));
    }
}
