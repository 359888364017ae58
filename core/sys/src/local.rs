//! Packet sockets that have a path: listening, connecting, and who is at the other end. See `unix(7)`.
#![expect(unsafe_code, reason = "socket options that no crate wraps")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect as connect_to, getsockopt,
    listen as listen_on, socket,
};
use nix::sys::stat::{Mode, fchmod};

use crate::socket::refuse_descriptors;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
const SO_PEERGROUPS: libc::c_int = 59;
const SO_PEERPIDFD: libc::c_int = 77;

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// Listens at a path that must be free, non-blocking. Who connects can send no descriptors, where the kernel [sees to it](refuse_descriptors). The file has at most the permissions `mode` from its first moment (the process's mask takes some away).
///
/// # Errors
/// `EADDRINUSE` where there is a file already; `ENAMETOOLONG` for a path over 107 bytes; as `bind(2)`.
pub fn listen(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let fd = new_socket()?;
    refuse_descriptors(fd.as_fd())?;
    // Before it has a name, so that there is no moment at which it lets more through.
    fchmod(&fd, Mode::from_bits_truncate(mode))?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen_on(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd)
}

/// Connects to a listener, non-blocking.
///
/// # Errors
/// `ECONNREFUSED` where nobody listens any more; `EAGAIN` where too many wait to be accepted; `ENOENT`, `EACCES`; as `connect(2)`.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let fd = new_socket()?;
    connect_to(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd)
}

/// The next connection, non-blocking.
///
/// # Errors
/// `WouldBlock` where there is none; `EMFILE`; as `accept(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let number = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just opened it for this process and told nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Who has connected, as the kernel noted it at that moment.
#[derive(Debug)]
pub struct Peer {
    /// Process id; may be another's by now.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group, and the supplementary groups.
    pub groups: Vec<u32>,
    /// The process, readable when it has ended; `None` before Linux 6.5.
    pub pidfd: Option<OwnedFd>,
}

/// Who is at the other end of a connection.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = getsockopt(&socket, PeerCredentials)?;
    let mut groups = vec![credentials.gid()];
    groups.extend(supplementary_groups(socket)?);
    let pid = u32::try_from(credentials.pid()).unwrap_or(0);
    Ok(Peer { pid, uid: credentials.uid(), groups, pidfd: peer_pidfd(socket) })
}

fn supplementary_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // The kernel's own limit (`NGROUPS_MAX`).
    let mut groups = vec![0u32; 65_536];
    let bytes = option(socket, SO_PEERGROUPS, groups.as_mut_ptr().cast(), size_of_val(&groups[..]))?;
    groups.truncate(bytes / size_of::<u32>());
    Ok(groups)
}

fn peer_pidfd(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut number: libc::c_int = -1;
    option(socket, SO_PEERPIDFD, (&raw mut number).cast(), size_of_val(&number)).ok()?;
    // SAFETY: the kernel has just opened it, close-on-exec, and told nobody else.
    (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Reads an option into `bytes` bytes at `to`; returns how many were written.
fn option(
    socket: BorrowedFd<'_>,
    name: libc::c_int,
    to: *mut libc::c_void,
    bytes: usize,
) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: both callers pass a live buffer of as many bytes, of plain numbers.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, to, &raw mut len) };
    Errno::result(done)?;
    Ok(len as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{poll, socket};
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("microfaas-sys-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_peer_is_known() {
        let folder = Folder::new("peer");
        let path = folder.0.join("socket");
        let listener = listen(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mine = connect(&path).unwrap();
        assert!(poll::is_readable(listener.as_fd(), Some(Duration::ZERO)).unwrap());
        let theirs = accept(listener.as_fd()).unwrap();
        let peer = peer(theirs.as_fd()).unwrap();
        assert_eq!((peer.pid, peer.uid), (std::process::id(), nix::unistd::geteuid().as_raw()));
        assert_eq!(peer.groups[0], nix::unistd::getegid().as_raw());
        assert_eq!(peer.groups.len() - 1, nix::unistd::getgroups().unwrap().len());
        if let Some(pidfd) = &peer.pidfd {
            assert!(!poll::is_readable(pidfd.as_fd(), Some(Duration::ZERO)).unwrap());
        }
        drop(mine);
        assert!(poll::is_readable(theirs.as_fd(), Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn who_connects_sends_no_descriptors() {
        let folder = Folder::new("refuses");
        let path = folder.0.join("socket");
        let listener = listen(&path, 0o600).unwrap();
        let mine = connect(&path).unwrap();
        let try_it = || socket::send(mine.as_fd(), b"x", &[mine.as_fd()]).map_err(|error| error.kind());
        let expected = match refuse_descriptors(listener.as_fd()).unwrap() {
            true => Err(io::ErrorKind::PermissionDenied),
            false => Ok(()),
        };
        assert_eq!(try_it(), expected, "before it is accepted");
        let _theirs = accept(listener.as_fd()).unwrap();
        assert_eq!(try_it(), expected);
    }

    #[test]
    fn a_path_is_taken_once_and_a_dead_listener_refuses() {
        let folder = Folder::new("taken");
        let path = folder.0.join("socket");
        let code = |result: io::Result<OwnedFd>| result.unwrap_err().raw_os_error();
        assert_eq!(code(connect(&path)), Some(libc::ENOENT));
        let listener = listen(&path, 0o600).unwrap();
        assert_eq!(code(listen(&path, 0o600)), Some(libc::EADDRINUSE));
        drop(listener);
        assert_eq!(code(connect(&path)), Some(libc::ECONNREFUSED));
        assert!(connect(&folder.0.join("x".repeat(200))).is_err());
    }
}
