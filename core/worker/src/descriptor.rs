//! Descriptors of a worker that may be sealed: they are closed by nothing but `close`, and have the numbers that the filter knows
//! (`microfaas_sandbox::rules`). An `OwnedFd` may look at its descriptor with `fcntl` when it closes it, which is not allowed.
#![expect(unsafe_code, reason = "owns descriptors by number")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use microfaas_sandbox::rules::{EVENTS, EVENTS_MAX};
use nix::errno::Errno;

/// A descriptor that has come with a packet; closed when dropped.
#[derive(Debug)]
pub struct Received(RawFd);

impl Received {
    /// Takes it over.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd.into_raw_fd())
    }
}

impl AsRawFd for Received {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl IntoRawFd for Received {
    fn into_raw_fd(self) -> RawFd {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl AsFd for Received {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open until it is dropped.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // SAFETY: this value is the only one that owns the descriptor.
        unsafe { libc::close(self.0) };
    }
}

/// A host's eventfd, in its place among [`EVENTS`]; closed when dropped.
#[derive(Debug)]
pub struct Event(Received);

impl Event {
    /// Puts the eventfd of this lane into its place.
    ///
    /// # Errors
    /// Where there is no such place, or the limit on open files is below 256.
    pub fn place(received: &Received, lane: u32) -> io::Result<Self> {
        if lane >= EVENTS_MAX {
            return Err(io::Error::other(format!("lane {lane}, and there are at most {EVENTS_MAX}")));
        }
        let number = EVENTS + lane.cast_signed();
        // SAFETY: the place is this lane's: nothing else of a worker puts a descriptor there, and the node gives no number twice.
        let placed = unsafe { libc::dup3(received.0, number, libc::O_CLOEXEC) };
        let placed = Errno::result(placed).map_err(|error| match error {
            Errno::EBADF => {
                let most = EVENTS + EVENTS_MAX.cast_signed();
                io::Error::other(format!(
                    "a worker's limit on open files is to be {most} at least (ulimit -n)"
                ))
            }
            error => error.into(),
        })?;
        Ok(Self(Received(placed)))
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Event {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0
    }
}
