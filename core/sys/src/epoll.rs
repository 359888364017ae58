//! Many descriptors behind one that an event loop can wait on. See `epoll(7)`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::epoll::{Epoll as Raw, EpollCreateFlags, EpollEvent, EpollFlags};

/// When a descriptor counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Once, whenever something new arrives; it need not be read.
    Rising,
    /// For as long as it can be read.
    Level,
}

/// A set of descriptors; itself readable while one of them is ready.
#[derive(Debug)]
pub struct Epoll(Raw);

impl Epoll {
    /// An empty set, close-on-exec.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Raw::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Adds a descriptor. It leaves the set when the last descriptor of the same file is closed, in all processes.
    ///
    /// # Errors
    /// `EEXIST` where it is in the set; as `epoll_ctl(2)`.
    pub fn add(&self, fd: BorrowedFd<'_>, edge: Edge) -> io::Result<()> {
        let edge = if edge == Edge::Rising { EpollFlags::EPOLLET } else { EpollFlags::empty() };
        Ok(self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN | edge, 0))?)
    }

    /// Takes a descriptor out.
    ///
    /// # Errors
    /// `ENOENT` where it is not in the set.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Waits until a descriptor is ready, at most `timeout` (`None`: for ever). True when one is. Those that rise are taken note of.
    ///
    /// # Errors
    /// As `epoll_wait(2)`; a signal ends the wait early without an error.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout =
            timeout.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
        let mut events = [EpollEvent::empty(); 64];
        match self.0.wait(&mut events, timeout) {
            Ok(count) => Ok(count > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes note of all that have risen, so that the set is no longer readable by them.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Cost
    /// A system call.
    pub fn clear(&self) -> io::Result<()> {
        // More than one round only with more than 64 lanes that ring at once; the next call takes the rest.
        self.wait(Some(Duration::ZERO)).map(drop)
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eventfd, poll};

    #[test]
    fn a_rising_descriptor_counts_once_without_being_read() {
        let (set, event) = (Epoll::new().unwrap(), eventfd::create().unwrap());
        set.add(event.as_fd(), Edge::Rising).unwrap();
        let readable = || poll::is_readable(set.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(!readable());
        for _ in 0..3 {
            eventfd::signal(event.as_fd()).unwrap();
            assert!(readable());
            set.clear().unwrap();
            assert!(!readable());
        }
        set.remove(event.as_fd()).unwrap();
        eventfd::signal(event.as_fd()).unwrap();
        assert!(!readable());
    }

    #[test]
    fn a_closed_descriptor_leaves() {
        let (set, event) = (Epoll::new().unwrap(), eventfd::create().unwrap());
        set.add(event.as_fd(), Edge::Level).unwrap();
        eventfd::signal(event.as_fd()).unwrap();
        assert!(set.wait(Some(Duration::ZERO)).unwrap());
        drop(event);
        assert!(!set.wait(Some(Duration::ZERO)).unwrap());
    }
}
