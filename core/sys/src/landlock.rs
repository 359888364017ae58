//! Giving up the file system, TCP ports and signals to others. See `landlock(7)`.
#![expect(unsafe_code, reason = "no crate here wraps these system calls")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// `struct landlock_ruleset_attr`. Older kernels have a shorter one and accept zeros behind it.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

const CREATE_RULESET_VERSION: u32 = 1;

/// The newest version that the kernel has.
///
/// # Errors
/// `ENOSYS` where it has none, `EOPNOTSUPP` where it is switched off.
pub fn abi_version() -> io::Result<u32> {
    // SAFETY: with this flag the call takes no attributes and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttr>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(Errno::result(version)?).map_err(io::Error::other)
}

/// Every right that version `abi` knows. Bits from `linux/landlock.h`, by the version that brought them.
fn everything(abi: u32) -> RulesetAttr {
    // EXECUTE to MAKE_SYM, bits 0 to 12, in the first version; then REFER, TRUNCATE, IOCTL_DEV.
    let handled_access_fs = match abi {
        1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    };
    // BIND_TCP and CONNECT_TCP.
    let handled_access_net = if abi >= 4 { 0b11 } else { 0 };
    // ABSTRACT_UNIX_SOCKET and SIGNAL.
    let scoped = if abi >= 6 { 0b11 } else { 0 };
    RulesetAttr { handled_access_fs, handled_access_net, scoped }
}

/// Denies the calling thread, and all that it starts, every access that the kernel's Landlock knows of, for ever. Returns the version.
/// What is open stays open, mappings stay, and files without a path (memfds) can still be opened.
///
/// # Errors
/// As [`abi_version`]; `EPERM` without no-new-privileges.
pub fn deny_all() -> io::Result<u32> {
    let abi = abi_version()?;
    let attr = everything(abi);
    // SAFETY: the attributes are initialised and live through the call.
    let fd = Errno::result(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size_of::<RulesetAttr>(), 0u32)
    })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it and told nobody else.
    let ruleset = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: takes two numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) })?;
    Ok(abi)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privileges;

    #[test]
    fn rights_grow_with_the_version() {
        assert_eq!(everything(1).handled_access_fs, 0x1fff);
        assert_eq!(everything(3).handled_access_fs, 0x7fff);
        assert_eq!(everything(9).handled_access_fs, 0xffff);
        assert_eq!((everything(3).handled_access_net, everything(5).scoped), (0, 0));
        assert_eq!((everything(4).handled_access_net, everything(6).scoped), (3, 3));
    }

    /// Landlock is per thread, so a test thread can give everything up by itself.
    #[test]
    fn afterwards_no_file_opens_and_no_port_connects() {
        let Ok(abi) = abi_version() else { return };
        std::thread::spawn(move || {
            assert!(std::fs::read("/proc/self/stat").is_ok());
            privileges::set_no_new_privileges().unwrap();
            assert_eq!(deny_all().unwrap(), abi);
            let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            assert!(denied(std::fs::read("/proc/self/stat").unwrap_err()));
            assert!(denied(std::fs::write("/tmp/microfaas-landlock", "x").unwrap_err()));
            if abi >= 4 {
                assert!(denied(std::net::TcpStream::connect("127.0.0.1:1").unwrap_err()));
            }
        })
        .join()
        .unwrap();
    }
}
