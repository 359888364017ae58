//! Views of the system of one's own. See `namespaces(7)`.

use std::io;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root};

/// A kind of namespace that a process can enter by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// Users and capabilities; the only one that an ordinary user may make, and the one that lets him make the others.
    User,
    /// Network devices, addresses, ports.
    Net,
    /// System V objects and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Control groups as seen in `/proc`.
    Cgroup,
    /// Mounts.
    Mount,
}

/// Enters a new namespace. The process must have one thread.
///
/// # Errors
/// `EPERM` without the right to, `ENOSPC` over the limit in `/proc/sys/user`, `EINVAL` with several threads or where the kernel has none.
pub fn enter(kind: Namespace) -> io::Result<()> {
    let flag = match kind {
        Namespace::User => CloneFlags::CLONE_NEWUSER,
        Namespace::Net => CloneFlags::CLONE_NEWNET,
        Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
        Namespace::Uts => CloneFlags::CLONE_NEWUTS,
        Namespace::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        Namespace::Mount => CloneFlags::CLONE_NEWNS,
    };
    Ok(unshare(flag)?)
}

/// Where the empty root is put before it becomes the root: a directory that every system has and that need not be writable.
const STAGE: &str = "/proc";

/// Makes an empty, read-only directory the root and the working directory. Nothing that is not open can be reached afterwards.
/// In a mount namespace of one's own ([`Namespace::Mount`]) only: elsewhere this would empty the whole system.
///
/// # Errors
/// As `mount(2)` and `pivot_root(2)`. After one, the root may have an empty directory mounted over `/proc`; it is otherwise as it was.
pub fn empty_root() -> io::Result<()> {
    let nothing = None::<&str>;
    // What happens to mounts here must not spread to the system, nor back.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("none"),
        STAGE,
        Some("tmpfs"),
        flags | MsFlags::MS_RDONLY,
        Some("size=4k,nr_inodes=2,mode=555"),
    )?;
    chdir(STAGE)?;
    // Both at the same place: the old root is stacked on the new one, and the next call takes it off. See `pivot_root(2)`, "pivot_root(".", ".")".
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}
