//! What a peer has still to read: sent without waiting, kept for a little while where it does not take it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_sys::socket;

/// How long a peer may leave a packet unread when there is no room for more.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Packets that are kept; no peer that reads has as many.
const PACKETS_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    packets: VecDeque<(Vec<u8>, Vec<Arc<OwnedFd>>)>,
    /// Since when there is no room.
    stuck: Option<Instant>,
}

impl Outbox {
    /// Sends a packet, at once or when there is room.
    ///
    /// # Errors
    /// Where the peer is gone or does not read.
    pub(crate) fn say(
        &mut self,
        socket: BorrowedFd<'_>,
        packet: Vec<u8>,
        fds: Vec<Arc<OwnedFd>>,
    ) -> io::Result<()> {
        if self.packets.len() == PACKETS_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read"));
        }
        self.packets.push_back((packet, fds));
        self.flush(socket)
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    /// As [`say`](Self::say).
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while let Some((packet, fds)) = self.packets.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match socket::send(socket, packet, &fds) {
                Ok(()) => {
                    self.packets.pop_front();
                    self.stuck = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let since = *self.stuck.get_or_insert_with(Instant::now);
                    if since.elapsed() >= READ_WITHIN {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read"));
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Until when the peer has to have read something; `None` where nothing waits.
    pub(crate) fn read_by(&self) -> Option<Instant> {
        self.stuck.map(|since| since + READ_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_waits_and_comes_in_order() {
        let (near, far) = socket::pair().unwrap();
        let mut outbox = Outbox::default();
        let text = "x".repeat(20_000);
        for i in 0..100 {
            outbox.say(near.as_fd(), format!("{i} {text}").into_bytes(), Vec::new()).unwrap();
        }
        assert!(outbox.read_by().is_some());
        let mut buffer = vec![0; 65_536];
        for i in 0..100 {
            let packet = socket::try_recv(far.as_fd(), &mut buffer, 0).unwrap();
            assert_eq!(buffer[..packet.len], *format!("{i} {text}").as_bytes());
            outbox.flush(near.as_fd()).unwrap();
        }
        assert!(outbox.read_by().is_none());
        drop(far);
        assert!(outbox.say(near.as_fd(), vec![0], Vec::new()).is_err());
    }
}
