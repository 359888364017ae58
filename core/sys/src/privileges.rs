//! Rights that a process gives up for ever: users, capabilities, descriptors, limits, and the switches of `prctl(2)`.
#![expect(unsafe_code, reason = "prctl, capset and close_range take raw numbers and structures")]

use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, getgroups, setgroups, setresgid, setresuid};

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    // The kernel wants the arguments that an option does not use to be 0.
    const NONE: libc::c_ulong = 0;
    // SAFETY: every option used in this file takes a number and no pointer.
    Ok(Errno::result(unsafe { libc::prctl(option, argument, NONE, NONE, NONE) })?)
}

/// From now on no program that the thread executes gets more rights than it has (set-uid bits do nothing).
///
/// # Errors
/// None in ordinary use.
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    if prctl(libc::PR_GET_NO_NEW_PRIVS, 0)? == 1 {
        Ok(())
    } else {
        Err(io::Error::other("it did not stay set"))
    }
}

/// No other process of the same user may trace this one or read its memory, and it leaves no core.
/// Executing a program or changing the user undoes it.
///
/// # Errors
/// None in ordinary use.
pub fn set_not_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)?;
    Ok(())
}

/// Asks to be killed when the thread that started this process ends. Changing the user or gaining capabilities undoes it, so it comes
/// after those; a parent that died before was not noticed, so look at `getppid` afterwards.
///
/// # Errors
/// None in ordinary use.
pub fn set_death_signal() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::c_ulong::try_from(libc::SIGKILL).unwrap_or(9))?;
    Ok(())
}

/// No memory is writable and executable, and what was writable never becomes executable (`PR_SET_MDWE`, Linux 6.3). Mapping a
/// file executable, as a loader does, stays possible.
///
/// # Errors
/// `EINVAL` on an older kernel.
pub fn deny_write_execute() -> io::Result<()> {
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    prctl(libc::PR_SET_MDWE, REFUSE_EXEC_GAIN)?;
    Ok(())
}

/// Becomes another user and group for ever, real, effective and saved, and leaves all supplementary groups.
///
/// # Errors
/// `EPERM` without the right to; `InvalidInput` for user or group 0.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    if uid == 0 || gid == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "user and group 0 are not unprivileged"));
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    let came_back = setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok();
    if came_back || !getgroups()?.is_empty() {
        return Err(io::Error::other("the user was changed, but not for good"));
    }
    Ok(())
}

/// Whether the process acts as root. Not where it does so by name only: in a user namespace in which nobody else is, as `unshare -r` makes one for an ordinary user, who can
/// become no other there.
#[must_use]
pub fn is_root() -> bool {
    let is_by_name = || std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| maps_root_alone(&map));
    nix::unistd::geteuid().is_root() && !is_by_name()
}

/// Whether these are the users of such a namespace: the first inside, who that is outside, and how many there are. Root outside is root.
fn maps_root_alone(map: &str) -> bool {
    let mut fields = map.split_ascii_whitespace();
    let fields = [(); 4].map(|()| fields.next().and_then(|field| field.parse::<u32>().ok()));
    matches!(fields, [Some(0), Some(1..), Some(1), None])
}

/// The effective user.
#[must_use]
pub fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`; the third version has two of them, the lower 32 capabilities first.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;
const NO_CAPABILITIES: [CapData; 2] = [CapData { effective: 0, permitted: 0, inheritable: 0 }; 2];

/// Takes every capability out of the bounding set, so that none can come back by executing a program. Needs `CAP_SETPCAP`; without any
/// capability there is nothing to do, as with no-new-privileges none comes back anyway.
///
/// # Errors
/// `EPERM` without that capability.
pub fn empty_bounding_set() -> io::Result<()> {
    // EINVAL is the kernel's word for a number behind its last capability.
    (0..64).take_while(|number| prctl(libc::PR_CAPBSET_READ, *number).is_ok()).try_for_each(|number| {
        prctl(libc::PR_CAPBSET_DROP, number)?;
        Ok(())
    })
}

/// Gives up every capability: effective, permitted and inheritable.
///
/// # Errors
/// None in ordinary use.
pub fn drop_capabilities() -> io::Result<()> {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let none = NO_CAPABILITIES;
    // SAFETY: both structures are initialised; the kernel reads two data entries of this version.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) })?;
    if has_capabilities()? { Err(io::Error::other("a capability is left")) } else { Ok(()) }
}

/// Whether any capability is left.
///
/// # Errors
/// None in ordinary use.
pub fn has_capabilities() -> io::Result<bool> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut found = NO_CAPABILITIES;
    // SAFETY: the kernel writes two data entries of this version.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, found.as_mut_ptr()) })?;
    Ok(found != NO_CAPABILITIES)
}

/// Closes every descriptor above 2 that is not in `keep`. See `close_range(2)`.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
///
/// # Safety
/// Whoever owns a closed descriptor must not use or close it any more.
pub unsafe fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            // SAFETY: the caller's promise.
            Errno::result(unsafe { libc::close_range(first, fd - 1, 0) })?;
        }
        first = first.max(fd + 1);
    }
    // SAFETY: the caller's promise.
    Errno::result(unsafe { libc::close_range(first, libc::c_uint::MAX, 0) })?;
    Ok(())
}

/// Something that a process can be limited in. See `setrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of a core file.
    Core,
    /// Bytes of private writable memory, touched or not.
    Data,
    /// Bytes that a file may grow to.
    FileSize,
    /// Bytes of locked memory.
    LockedMemory,
    /// Bytes in POSIX message queues.
    MessageQueues,
    /// Highest descriptor number plus one.
    OpenFiles,
    /// Processes and threads of the user.
    Processes,
    /// Real-time priority.
    RealTimePriority,
}

/// Lowers a limit for ever, soft and hard. One that is lower already stays.
///
/// # Errors
/// None in ordinary use.
pub fn limit(what: Limit, most: u64) -> io::Result<()> {
    let resource = match what {
        Limit::Core => Resource::RLIMIT_CORE,
        Limit::Data => Resource::RLIMIT_DATA,
        Limit::FileSize => Resource::RLIMIT_FSIZE,
        Limit::LockedMemory => Resource::RLIMIT_MEMLOCK,
        Limit::MessageQueues => Resource::RLIMIT_MSGQUEUE,
        Limit::OpenFiles => Resource::RLIMIT_NOFILE,
        Limit::Processes => Resource::RLIMIT_NPROC,
        Limit::RealTimePriority => Resource::RLIMIT_RTPRIO,
    };
    let (soft, hard) = getrlimit(resource)?;
    let most = most.min(hard);
    Ok(setrlimit(resource, most.min(soft), most)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_becomes_root_by_this() {
        assert_eq!(become_user(0, 65_534).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(become_user(65_534, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn root_alone_is_a_name() {
        assert!(maps_root_alone("         0       1000          1\n"));
        for map in [
            "",
            "0 0 1",
            "0 0 4294967295",
            "1000 1000 1",
            "0 1000 2",
            "0 1000",
            "0 1000 1\n1 100000 65536\n",
            "0 a 1",
        ] {
            assert!(!maps_root_alone(map), "{map:?}");
        }
    }

    /// Capabilities and these switches are the thread's own.
    #[test]
    fn a_thread_without_capabilities_stays_so() {
        std::thread::spawn(|| {
            set_no_new_privileges().unwrap();
            drop_capabilities().unwrap();
            assert!(!has_capabilities().unwrap());
            if std::fs::metadata("/etc/shadow").is_ok() && !is_root() {
                assert!(std::fs::read("/etc/shadow").is_err());
            }
        })
        .join()
        .unwrap();
    }
}
