//! Processes that an experiment stops, continues and kills: only descendants of its own, and each by its descriptor, so that no other can be meant.

use std::io;
use std::time::{Duration, Instant};

use microfaas_node::{Node, WorkerState};
use microfaas_sys::process::Signaller;
use microfaas_sys::slice;
use nix::sys::signal::Signal;

use crate::footprint::descendants;

/// How often a state is looked at that nothing announces.
const LOOK: Duration = Duration::from_micros(200);

/// See the module.
#[derive(Debug, Clone)]
pub struct Victim {
    /// Its number; for messages.
    pub pid: u32,
    signaller: Signaller,
}

impl Victim {
    /// A descendant of this process. `None` where there is none of that number.
    ///
    /// # Errors
    /// As `pidfd_open(2)`, but for a process that is gone.
    pub fn open(pid: u32) -> io::Result<Option<Self>> {
        let signaller = match Signaller::open(pid) {
            Ok(signaller) => signaller,
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Looked at after it was opened: whoever has the number now is the one that is meant.
        let is_ours = descendants(std::process::id()).iter().any(|(other, _)| *other == pid);
        Ok(is_ours.then_some(Self { pid, signaller }))
    }

    /// `SIGKILL`.
    ///
    /// # Errors
    /// As [`Signaller::send`].
    pub fn kill(&self) -> io::Result<()> {
        self.signaller.kill()
    }

    /// Any signal.
    ///
    /// # Errors
    /// As [`Signaller::send`].
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        self.signaller.send(signal as i32)
    }

    /// Whether it has ended, or does within this time.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub fn ends_within(&self, time: Duration) -> io::Result<bool> {
        self.signaller.wait(Some(time))
    }
}

/// A worker of a node, as it was when it was picked.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its process.
    pub process: Victim,
    /// Its place.
    pub index: usize,
    /// Which process of the place it is.
    pub generation: u32,
}

impl Worker {
    /// A worker that serves; `None` where this one does not.
    ///
    /// # Errors
    /// As [`Victim::open`].
    pub fn of(node: &Node, index: usize) -> io::Result<Option<Self>> {
        let Some(info) = node.workers().get(index).copied() else { return Ok(None) };
        let Some(pid) = info.pid.filter(|_| info.state == WorkerState::Serving) else { return Ok(None) };
        let process = Victim::open(pid)?;
        Ok(process.map(|process| Self { process, index, generation: info.generation }))
    }

    /// Whether another process serves in its place.
    #[must_use]
    pub fn is_replaced(&self, node: &Node) -> bool {
        let info = node.workers().get(self.index).copied();
        info.is_some_and(|info| info.generation > self.generation && info.state == WorkerState::Serving)
    }

    /// Kills it and waits until another serves; how long that took. `None` where none does within `patience`. Seen by a thread of its own, with short slices:
    /// it is not to wait for its turn behind those that make the load.
    ///
    /// # Errors
    /// As [`Victim::kill`].
    pub fn kill_and_wait(&self, node: &Node, patience: Duration) -> io::Result<Option<Duration>> {
        let watch = || {
            slice::shorten(LOOK)?;
            let start = Instant::now();
            self.process.kill()?;
            Ok(until(patience, || self.is_replaced(node)).then(|| start.elapsed()))
        };
        let watched = std::thread::scope(|scope| scope.spawn(watch).join());
        watched.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Waits until something is so; false where it is not within this time.
pub fn until(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !is_so() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descendants_can_be_meant() {
        assert!(Victim::open(std::os::unix::process::parent_id()).expect("it can be opened").is_none());
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("it starts");
        let victim = Victim::open(child.id()).expect("it can be opened").expect("it is ours");
        assert!(!victim.ends_within(Duration::ZERO).expect("it can be waited for"));
        victim.kill().expect("it is ours");
        assert!(victim.ends_within(Duration::from_secs(60)).expect("it can be waited for"));
        child.wait().expect("it is ours");
    }
}
