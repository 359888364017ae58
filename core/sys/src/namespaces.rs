//! Views of the system of one's own. See `namespaces(7)`.
#![expect(unsafe_code, reason = "a child process that makes them, between fork and its end")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, fork, pivot_root};

use crate::socket;

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

impl Namespace {
    /// All of them, in the order in which they can be entered: the first gives an ordinary user the right to the others.
    pub const ALL: [Self; 6] = [Self::User, Self::Net, Self::Ipc, Self::Uts, Self::Cgroup, Self::Mount];

    fn flag(self) -> CloneFlags {
        match self {
            Self::User => CloneFlags::CLONE_NEWUSER,
            Self::Net => CloneFlags::CLONE_NEWNET,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            Self::Mount => CloneFlags::CLONE_NEWNS,
        }
    }

    /// Where a process finds its own.
    fn path(self) -> &'static CStr {
        match self {
            Self::User => c"/proc/self/ns/user",
            Self::Net => c"/proc/self/ns/net",
            Self::Ipc => c"/proc/self/ns/ipc",
            Self::Uts => c"/proc/self/ns/uts",
            Self::Cgroup => c"/proc/self/ns/cgroup",
            Self::Mount => c"/proc/self/ns/mnt",
        }
    }

    /// The last so many of [`ALL`](Self::ALL); `None` where they are neither all nor all but the first.
    #[must_use]
    pub fn last(count: usize) -> Option<&'static [Self]> {
        (count + 1 >= Self::ALL.len()).then(|| Self::ALL.get(Self::ALL.len().checked_sub(count)?..)).flatten()
    }
}

/// Enters a new namespace. The process must have one thread.
///
/// # Errors
/// `EPERM` without the right to, `ENOSPC` over the limit in `/proc/sys/user`, `EINVAL` with several threads or where the kernel has none.
pub fn enter(kind: Namespace) -> io::Result<()> {
    Ok(unshare(kind.flag())?)
}

/// One of each kind, made once for any number of processes, with an [empty root](empty_root). They live as long as the value, or a process in them.
///
/// To make them and to take them apart the kernel waits for all cores (mounts and networks go with a grace period of its read-copy-update), and for others who do the same:
/// with many processes that each have their own, on busy cores, that was 50 ms at the 99th percentile, and seconds now and then. To [join](Self::join) takes some 20 us.
#[derive(Debug)]
pub struct Shared {
    /// In the order of [`Namespace::ALL`].
    all: Vec<OwnedFd>,
}

impl Shared {
    /// Makes them, in a child process that has ended when this returns. `user`: with a namespace of users, which whoever is not root needs for the others. A child that takes
    /// longer than `within` is killed. No signal is handled in the child: what this process does about one, it does once.
    ///
    /// # Errors
    /// As [`enter`] and [`empty_root`]; `TimedOut`; where `/proc` is not there or not of this process's own view; and as `fork(2)`. There are all of them or none.
    pub fn make(user: bool, within: Duration) -> io::Result<Self> {
        let (near, far) = socket::pair()?;
        let kinds = if user { &Namespace::ALL[..] } else { &Namespace::ALL[1..] };
        // The child would run this process's handlers: a Ctrl-C on the terminal is for it, too.
        let signals = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the child makes system calls only, and neither allocates nor locks, as it must not in a process that may have threads.
        let forked = unsafe { fork() };
        if !matches!(forked, Ok(ForkResult::Child)) {
            signals.thread_set_mask()?;
        }
        match forked? {
            ForkResult::Child => {
                let code = make_and_send(kinds, far.as_raw_fd()).err().map_or(0, |error| error as i32);
                // SAFETY: nothing of this process is the child's to clean up.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => {
                drop(far);
                let packet = socket::recv(near.as_fd(), &mut [0], kinds.len(), Some(within));
                if packet.is_err() {
                    let _ = kill(child, Signal::SIGKILL);
                }
                let ended = wait(child);
                let fds = packet?.fds;
                if fds.len() == kinds.len() { Ok(Self { all: fds }) } else { Err(ended) }
            }
        }
    }

    /// For processes that are to [join](Self::join) them.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.iter().map(AsFd::as_fd)
    }

    /// Enters all of them by their descriptors, in the order of [`descriptors`](Self::descriptors). The process must have one thread, and be root, or of the user that
    /// made them. Its root and its working directory are the empty directory then.
    ///
    /// # Errors
    /// `EPERM` without the right to, `EINVAL` with several threads or where these are not such descriptors. The process may be in some of them then.
    pub fn join(all: &[BorrowedFd<'_>]) -> io::Result<()> {
        let kinds = Namespace::last(all.len()).ok_or(Errno::EINVAL)?;
        for (fd, kind) in all.iter().zip(kinds) {
            setns(fd, kind.flag())?;
        }
        Ok(())
    }
}

/// How a process has ended that was to send something.
fn wait(child: Pid) -> io::Error {
    loop {
        return match waitpid(child, None) {
            Err(Errno::EINTR) => continue,
            Ok(WaitStatus::Exited(_, code)) if code != 0 => io::Error::from_raw_os_error(code),
            other => io::Error::other(format!("the process that makes namespaces ended: {other:?}")),
        };
    }
}

/// In the child. The paths are short enough for `nix` not to allocate.
fn make_and_send(kinds: &[Namespace], socket: RawFd) -> Result<(), Errno> {
    let mut numbers = [0; Namespace::ALL.len()];
    for (kind, number) in kinds.iter().zip(&mut numbers) {
        unshare(kind.flag())?;
        // SAFETY: the path is a string that ends with a zero.
        *number =
            Errno::result(unsafe { libc::open(kind.path().as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) })?;
    }
    // What cannot be told by a number, it cannot be told.
    empty_root().map_err(|error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw))?;
    send(socket, &numbers[..kinds.len()])
}

/// As [`socket::send`], which allocates.
fn send(socket: RawFd, numbers: &[RawFd]) -> Result<(), Errno> {
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    let (mut byte, mut control) = (0_u8, Control([0; 64]));
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let bytes = u32::try_from(size_of_val(numbers)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: computes with its argument.
    let space = unsafe { libc::CMSG_SPACE(bytes) } as usize;
    if space > size_of::<Control>() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: plain numbers and pointers, for which zeroes are a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) = ((&raw mut control).cast(), space);
    // SAFETY: the message has its control buffer, which is aligned as its headers are.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: computes with its argument.
    let len = unsafe { libc::CMSG_LEN(bytes) } as usize;
    let first = libc::cmsghdr { cmsg_len: len, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    // SAFETY: the buffer has room for a header and the numbers, as was looked at.
    unsafe { header.write(first) };
    // SAFETY: the header lies in the buffer.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: there is room for the numbers behind the header; they may lie anywhere, as bytes.
    unsafe { data.copy_from_nonoverlapping(numbers.as_ptr().cast(), size_of_val(numbers)) };
    // SAFETY: everything that the message points to lives until the call is over.
    Errno::result(unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) }).map(drop)
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
