//! Waiting for descriptors. See `poll(2)`.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// Waits until one of the descriptors can be read or has hung up, at most `timeout` (`None`: for ever), and sets `ready` for each of
/// them. Returns how many are; 0 means that the time is up. Signals do not end the wait.
///
/// # Errors
/// `ENOMEM`, `EINVAL` for more descriptors than the process may have.
///
/// # Panics
/// Where `ready` is shorter than `fds`.
pub fn readable(fds: &[BorrowedFd<'_>], ready: &mut [bool], timeout: Option<Duration>) -> io::Result<usize> {
    wait(fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect(), ready, timeout)
}

/// As [`readable`], where each descriptor may also be one that waits until it can be written: those with a `true` beside them.
///
/// # Errors
/// As [`readable`].
///
/// # Panics
/// As [`readable`].
pub fn ready(
    fds: &[(BorrowedFd<'_>, bool)],
    ready: &mut [bool],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let flags = |also_writable| {
        if also_writable { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN }
    };
    wait(fds.iter().map(|(fd, writable)| PollFd::new(*fd, flags(*writable))).collect(), ready, timeout)
}

fn wait(mut list: Vec<PollFd<'_>>, ready: &mut [bool], timeout: Option<Duration>) -> io::Result<usize> {
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = match end {
            None => PollTimeout::NONE,
            // Rounded up, so that the wait does not end early and spin.
            Some(end) => PollTimeout::try_from(
                end.saturating_duration_since(Instant::now()) + Duration::from_micros(999),
            )
            .unwrap_or(PollTimeout::MAX),
        };
        match nix::poll::poll(&mut list, left) {
            Ok(count) => {
                for (ready, fd) in ready[..list.len()].iter_mut().zip(&list) {
                    *ready = fd.any().unwrap_or(true);
                }
                return Ok(usize::try_from(count).unwrap_or(0));
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// As [`readable`] for one descriptor.
///
/// # Errors
/// As [`readable`].
pub fn is_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    Ok(readable(&[fd], &mut [false], timeout)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventfd;
    use std::os::fd::AsFd;

    #[test]
    fn the_ready_one_is_named() {
        let (quiet, loud) = (eventfd::create().unwrap(), eventfd::create().unwrap());
        let fds = [quiet.as_fd(), loud.as_fd()];
        let mut ready = [true; 2];
        assert_eq!(readable(&fds, &mut ready, Some(Duration::ZERO)).unwrap(), 0);
        assert_eq!(ready, [false, false]);
        eventfd::signal(loud.as_fd()).unwrap();
        assert_eq!(readable(&fds, &mut ready, None).unwrap(), 1);
        assert_eq!(ready, [false, true]);
    }
}
