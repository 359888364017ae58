//! Which core a thread runs on.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Pins the calling thread to one core. See `sched_setaffinity(2)`.
///
/// # Errors
/// `EINVAL` where the core does not exist or is not allowed to this process.
pub fn pin_to(cpu: u32) -> io::Result<()> {
    pin_thread(Pid::from_raw(0), cpu)
}

/// Moves another process, which has one thread, to one core. Its number must not have passed to another: it is a child that was not reaped.
///
/// # Errors
/// `EINVAL` where the core does not exist or is not allowed to that process; `EPERM` where it is another user's, and this process may not all the same
/// (`CAP_SYS_NICE`).
pub fn pin(pid: u32, cpu: u32) -> io::Result<()> {
    pin_thread(Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?), cpu)
}

fn pin_thread(thread: Pid, cpu: u32) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(usize::try_from(cpu).map_err(io::Error::other)?)?;
    Ok(sched_setaffinity(thread, &set)?)
}

/// The cores that the calling thread may use, in order. See `sched_getaffinity(2)`.
///
/// # Errors
/// As the system call.
pub fn allowed() -> io::Result<Vec<u32>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0u32..).take(CpuSet::count()).filter(|&cpu| set.is_set(cpu as usize).unwrap_or(false)).collect())
}

/// The core that the calling thread runs on now, where the kernel tells. Stale as soon as it is known.
///
/// # Cost
/// About 2 ns (vDSO or restartable sequence); no system call.
#[must_use]
pub fn current() -> Option<u32> {
    nix::sched::sched_getcpu().ok().and_then(|cpu| u32::try_from(cpu).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_runs_there() {
        let last = *allowed().unwrap().last().unwrap();
        std::thread::spawn(move || {
            pin_to(last).unwrap();
            assert_eq!(current(), Some(last));
            assert_eq!(allowed().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_child_can_be_moved() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let last = *allowed().unwrap().last().unwrap();
        pin(child.id(), last).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(status.contains(&format!("Cpus_allowed_list:\t{last}\n")), "{status}");
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        assert!(pin_to(1000).is_err());
    }
}
