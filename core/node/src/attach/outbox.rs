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

#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    fds: Vec<Arc<OwnedFd>>,
    /// Of no use once there is a newer one.
    is_table: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    packets: VecDeque<Packet>,
    /// There is no room: until when there has to be some.
    read_by: Option<Instant>,
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
        self.push(Packet { bytes: packet, fds, is_table: false })?;
        self.flush(socket)
    }

    /// As [`say`](Self::say): a table in parts, in the place of what was not read of the one before. The first part says that the table begins anew.
    ///
    /// # Errors
    /// As [`say`](Self::say).
    pub(crate) fn say_table(
        &mut self,
        socket: BorrowedFd<'_>,
        parts: impl IntoIterator<Item = Vec<u8>>,
    ) -> io::Result<()> {
        let place = self.packets.iter().position(|packet| packet.is_table);
        self.packets.retain(|packet| !packet.is_table);
        // Who was told a part of a table hears nothing else before he has all of one.
        let after = self.packets.split_off(place.unwrap_or(self.packets.len()));
        let parts = parts.into_iter().map(|bytes| Packet { bytes, fds: Vec::new(), is_table: true });
        for packet in parts.chain(after) {
            self.push(packet)?;
        }
        self.flush(socket)
    }

    fn push(&mut self, packet: Packet) -> io::Result<()> {
        if self.packets.len() == PACKETS_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read"));
        }
        self.packets.push_back(packet);
        Ok(())
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    /// As [`say`](Self::say).
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while let Some(Packet { bytes, fds, .. }) = self.packets.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match socket::send(socket, bytes, &fds) {
                Ok(()) => {
                    self.packets.pop_front();
                    self.read_by = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let read_by = *self.read_by.get_or_insert_with(|| Instant::now() + READ_WITHIN);
                    if read_by <= Instant::now() {
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
        self.read_by
    }

    /// The peer has until then at least.
    pub(crate) fn has_time_until(&mut self, time: Instant) {
        self.read_by = self.read_by.map(|until| until.max(time));
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

    /// As when modules are deployed while a host is let in.
    #[test]
    fn a_table_is_whole_before_the_news_that_follow_it() {
        let (near, far) = socket::pair().unwrap();
        let mut outbox = Outbox::default();
        let packet = |text: String| format!("{text} {}", "x".repeat(20_000)).into_bytes();
        let table = |name: &'static str| (0..100).map(move |part| packet(format!("{name} {part}")));
        outbox.say_table(near.as_fd(), table("old")).unwrap();
        outbox.say(near.as_fd(), packet("news".into()), Vec::new()).unwrap();
        outbox.say_table(near.as_fd(), table("new")).unwrap();
        let (mut buffer, mut heard) = (vec![0; 65_536], Vec::new());
        while let Ok(packet) = socket::try_recv(far.as_fd(), &mut buffer, 0) {
            let text = String::from_utf8_lossy(&buffer[..packet.len]);
            heard.push(text.trim_end_matches(['x', ' ']).to_owned());
            outbox.flush(near.as_fd()).unwrap();
        }
        let old = heard.iter().take_while(|text| text.starts_with("old")).count();
        assert!((1..100).contains(&old), "{old} parts were sent at once");
        let rest = (0..100).map(|part| format!("new {part}")).chain(["news".to_owned()]);
        assert_eq!(heard[old..], rest.collect::<Vec<_>>());
    }

    /// As when a host is stopped while modules are deployed.
    #[test]
    fn of_tables_the_newest_is_kept() {
        let (near, far) = socket::pair().unwrap();
        let mut outbox = Outbox::default();
        let packet = |text: String| format!("{text} {}", "x".repeat(20_000)).into_bytes();
        outbox.say(near.as_fd(), packet("news".into()), Vec::new()).unwrap();
        for table in 0..2 * PACKETS_MAX {
            let parts = (0..3).map(|part| packet(format!("table {table} {part}")));
            outbox.say_table(near.as_fd(), parts).unwrap();
        }
        outbox.say(near.as_fd(), packet("more news".into()), Vec::new()).unwrap();
        let (mut buffer, mut heard) = (vec![0; 65_536], Vec::new());
        while let Ok(packet) = socket::try_recv(far.as_fd(), &mut buffer, 0) {
            let text = String::from_utf8_lossy(&buffer[..packet.len]);
            heard.push(text.trim_end_matches(['x', ' ']).to_owned());
            outbox.flush(near.as_fd()).unwrap();
        }
        assert_eq!(heard[0], "news");
        let last = 2 * PACKETS_MAX - 1;
        let whole = (0..3).map(|part| format!("table {last} {part}")).chain(["more news".to_owned()]);
        assert_eq!(heard[heard.len() - 4..], whole.collect::<Vec<_>>());
        assert!(heard.len() < 50, "{heard:?}");
    }
}
