//! A pair of connected packet sockets that carry descriptors beside bytes. See `unix(7)`, `SCM_RIGHTS`.
#![expect(
    unsafe_code,
    reason = "received descriptors come as numbers, and a socket option that no crate wraps"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

use crate::poll;

/// Most descriptors that the kernel passes at once (`SCM_MAX_FD`). Where any may come there is room for all of them, so that the kernel never has
/// to drop any and none can be left open unseen; where none may come there is no room, and the kernel opens none.
const FDS_MAX: usize = 253;
/// Whether a peer may send descriptors. Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Two connected `SOCK_SEQPACKET` sockets, close-on-exec, blocking.
///
/// # Errors
/// Out of descriptors or memory.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// No peer can send descriptors to this socket any more, nor to those that are accepted from it: its `sendmsg(2)` fails with `EPERM`. False where the kernel cannot do that
/// (before Linux 6.16).
///
/// Without this a peer can make whoever reads, or closes the socket, wait for as long as it likes, whether the descriptors are taken or not: the last descriptor of some
/// files waits when it is closed (a TCP socket that lingers, a file of a file system that its owner serves), and that of a packet on its way is closed by its receiver.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let off: libc::c_int = 0;
    let bytes = libc::socklen_t::try_from(size_of_val(&off)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads as many bytes of a number that outlives the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const off).cast(), bytes)
    };
    match Errno::result(done) {
        Err(Errno::ENOPROTOOPT) => Ok(false),
        done => done.map(|_| true).map_err(Into::into),
    }
}

/// Sends one packet with descriptors beside it. Does not wait: where the peer lets packets pile up, that is `WouldBlock`.
/// A peer that is gone is `BrokenPipe`, without a signal.
///
/// # Errors
/// As `sendmsg(2)`; a packet is sent whole or not at all.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    transmit(socket, bytes, fds, MsgFlags::MSG_DONTWAIT)
}

/// As [`send`], without descriptors, and waits for as long as the peer lets packets pile up.
///
/// # Errors
/// As [`send`], but for `WouldBlock`.
pub fn send_waiting(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    transmit(socket, bytes, &[], MsgFlags::empty())
}

fn transmit(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: MsgFlags) -> io::Result<()> {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | flags;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A packet as [`recv`] found it.
#[derive(Debug)]
pub struct Packet {
    /// Bytes of it, at the start of the buffer. 0 where the peer is gone (or sent an empty packet, which no protocol of ours does).
    pub len: usize,
    /// The descriptors beside it, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Others came with it that this process could not take: it has as many open as it may, or takes none. Only of [`try_recv_what_fits`].
    pub lost_fds: bool,
}

/// As [`try_recv`]; where this process cannot take all the descriptors that come with a packet, it gets the packet with those that it can.
///
/// # Errors
/// As [`try_recv`].
pub fn try_recv_what_fits(socket: BorrowedFd<'_>, buffer: &mut [u8], fds_max: usize) -> io::Result<Packet> {
    receive_what_fits(socket, buffer, fds_max, MsgFlags::MSG_DONTWAIT)
}

/// Receives one packet without waiting, with at most `fds_max` descriptors.
///
/// # Errors
/// `WouldBlock` where there is none; `InvalidData` for a packet longer than the buffer or with more descriptors than allowed, which are
/// closed; else as `recvmsg(2)`.
pub fn try_recv(socket: BorrowedFd<'_>, buffer: &mut [u8], fds_max: usize) -> io::Result<Packet> {
    receive(socket, buffer, fds_max, MsgFlags::MSG_DONTWAIT)
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], fds_max: usize, flags: MsgFlags) -> io::Result<Packet> {
    let packet = receive_what_fits(socket, buffer, fds_max, flags)?;
    if packet.lost_fds { Err(does_not_fit()) } else { Ok(packet) }
}

fn does_not_fit() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "packet too long or with too many descriptors")
}

fn receive_what_fits(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds_max: usize,
    flags: MsgFlags,
) -> io::Result<Packet> {
    let mut control = if fds_max == 0 { Vec::new() } else { nix::cmsg_space!([RawFd; FDS_MAX]) };
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | flags;
    let mut parts = [IoSliceMut::new(buffer)];
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(message) => break message,
            // Told once where the peer has gone without reading all that was said to it. What it has said itself is there still, and its end after that.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let (len, flags) = (message.bytes, message.flags);
    // Where any may come there is room for all of their numbers.
    let lost_fds = flags.contains(MsgFlags::MSG_CTRUNC);
    let mut numbers = Vec::new();
    if !lost_fds {
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(some) = part {
                numbers.extend(some);
            }
        }
    } else {
        numbers = taken(&control);
    }
    // SAFETY: the kernel has just opened these descriptors for this process and told nobody else of them.
    let fds: Vec<_> = numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect();
    if flags.contains(MsgFlags::MSG_TRUNC) || fds.len() > fds_max {
        return Err(does_not_fit());
    }
    Ok(Packet { len, fds, lost_fds })
}

/// The numbers of those descriptors that this process could take, where it could not take all: the one control message in a buffer that was zero, which nix does not
/// look at then.
fn taken(control: &[u8]) -> Vec<RawFd> {
    const HEAD: usize = size_of::<libc::cmsghdr>();
    let len = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| usize::from_ne_bytes(*bytes));
    let numbers = control.get(HEAD..len(control)).unwrap_or_default();
    numbers.as_chunks().0.iter().map(|number| RawFd::from_ne_bytes(*number)).collect()
}

/// As [`try_recv`], waiting at most `timeout` for a packet. `None` waits for ever, and in `recvmsg` itself: a worker's sandbox allows no `poll`.
///
/// # Errors
/// As [`try_recv`], with `TimedOut` in place of `WouldBlock`.
pub fn recv(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds_max: usize,
    timeout: Option<Duration>,
) -> io::Result<Packet> {
    if timeout.is_none() {
        return receive(socket, buffer, fds_max, MsgFlags::empty());
    }
    if !poll::is_readable(socket, timeout)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    try_recv(socket, buffer, fds_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventfd;
    use std::os::fd::AsFd;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (a, b) = pair().unwrap();
        let event = eventfd::create().unwrap();
        send(a.as_fd(), b"hello", &[event.as_fd(), event.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let packet = recv(b.as_fd(), &mut buffer, 4, None).unwrap();
        assert_eq!(&buffer[..packet.len], b"hello");
        assert_eq!(packet.fds.len(), 2);
        eventfd::signal(packet.fds[1].as_fd()).unwrap();
        assert_eq!(eventfd::drain(event.as_fd()).unwrap(), 1);
    }

    #[test]
    fn what_was_said_last_is_heard_though_not_all_was_read_before() {
        let (near, far) = pair().unwrap();
        for said in [b"one", b"two"] {
            send(near.as_fd(), b"unread", &[]).unwrap();
            send(far.as_fd(), said, &[]).unwrap();
        }
        drop(far);
        let mut buffer = [0; 16];
        for said in [b"one", b"two"] {
            let packet = try_recv(near.as_fd(), &mut buffer, 0).unwrap();
            assert_eq!(&buffer[..packet.len], said);
        }
        assert_eq!(recv(near.as_fd(), &mut buffer, 0, None).unwrap().len, 0);
        assert_eq!(try_recv(near.as_fd(), &mut buffer, 0).unwrap().len, 0);
    }

    #[test]
    fn surplus_descriptors_are_closed() {
        let (a, b) = pair().unwrap();
        let (near, far) = pair().unwrap();
        send(a.as_fd(), b"x", &[far.as_fd(); 3]).unwrap();
        drop(far);
        let error = recv(b.as_fd(), &mut [0; 16], 2, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        // Every copy of `far` is closed, so its peer sees the end.
        assert_eq!(recv(near.as_fd(), &mut [0; 16], 0, None).unwrap().len, 0);
    }

    #[test]
    fn where_none_may_come_the_kernel_drops_them() {
        let (a, b) = pair().unwrap();
        let (near, far) = pair().unwrap();
        send(a.as_fd(), b"x", &[far.as_fd()]).unwrap();
        drop(far);
        let packet = try_recv_what_fits(b.as_fd(), &mut [0; 16], 0).unwrap();
        assert!(packet.len == 1 && packet.fds.is_empty() && packet.lost_fds);
        assert_eq!(recv(near.as_fd(), &mut [0; 16], 0, None).unwrap().len, 0);
    }

    #[test]
    fn nobody_sends_descriptors_to_a_socket_that_refuses_them() {
        let (a, b) = pair().unwrap();
        let is_refused = refuse_descriptors(b.as_fd()).unwrap();
        let sent = send(a.as_fd(), b"x", &[a.as_fd()]);
        assert_eq!(sent.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied), is_refused);
        if is_refused {
            send(a.as_fd(), b"bytes", &[]).unwrap();
            assert_eq!(try_recv(b.as_fd(), &mut [0; 16], 0).unwrap().len, 5);
        }
        // The other direction is another matter.
        send(b.as_fd(), b"x", &[b.as_fd()]).unwrap();
        assert_eq!(try_recv(a.as_fd(), &mut [0; 16], 1).unwrap().fds.len(), 1);
    }

    #[test]
    fn who_waits_sends_when_there_is_room_again() {
        let (near, far) = pair().unwrap();
        let mut sent = 0;
        while send(near.as_fd(), b"x", &[]).is_ok() {
            sent += 1;
        }
        assert_eq!(send(near.as_fd(), b"x", &[]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| send_waiting(near.as_fd(), b"last"));
            let mut buffer = [0; 16];
            for _ in 0..sent {
                assert_eq!(recv(far.as_fd(), &mut buffer, 0, None).unwrap().len, 1);
            }
            assert_eq!(recv(far.as_fd(), &mut buffer, 0, None).unwrap().len, 4);
            waiting.join().unwrap().unwrap();
        });
        drop(far);
        assert_eq!(send_waiting(near.as_fd(), b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_packet_that_does_not_fit_is_an_error_and_a_missing_one_too() {
        let (a, b) = pair().unwrap();
        assert_eq!(try_recv(b.as_fd(), &mut [0; 4], 0).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let timeout = Some(Duration::from_millis(1));
        assert_eq!(recv(b.as_fd(), &mut [0; 4], 0, timeout).unwrap_err().kind(), io::ErrorKind::TimedOut);
        send(a.as_fd(), b"hello", &[]).unwrap();
        assert_eq!(try_recv(b.as_fd(), &mut [0; 4], 0).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(a);
        assert_eq!(try_recv(b.as_fd(), &mut [0; 4], 0).unwrap().len, 0);
        assert_eq!(send(b.as_fd(), b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
