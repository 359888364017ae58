//! Starting, watching, killing and reaping one child process by its descriptor. See `pidfd_open(2)`.
#![expect(unsafe_code, reason = "set-up between fork and exec, and calls that no crate wraps")]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::poll;
use crate::program::Program;

/// What to start, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Spawn<'a> {
    /// What to execute. The child's list of arguments begins with its file name.
    pub program: &'a Program,
    /// Its arguments, without the program's name.
    pub args: &'a [OsString],
    /// Its whole environment.
    pub env: &'a [(OsString, OsString)],
    /// Becomes descriptor [`number`](Self::number) of the child; all others but 0 to 2 are closed.
    pub fd: BorrowedFd<'a>,
    /// Number of the one descriptor that the child gets; at least 3.
    pub number: i32,
}

/// A child process. Dropping it neither kills nor reaps: [`kill`](Self::kill), then [`reap`](Self::reap).
#[derive(Debug)]
pub struct Process {
    pid: u32,
    signaller: Signaller,
}

/// Sends signals to one process, and to no other that gets its number later. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Signaller(Arc<OwnedFd>);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Somebody else in this process took the exit status.
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "{signal}"),
                Err(_) => write!(f, "signal {number}"),
            },
            Self::Unknown => write!(f, "unknown exit status"),
        }
    }
}

/// Starts a process with null standard input and output, this one's standard error, `/` as its directory and one descriptor.
/// It is killed when the *thread* that called this ends (`PR_SET_PDEATHSIG`), so call it from one that lives as long as the process does.
///
/// # Errors
/// As `fork(2)` and `execve(2)`.
pub fn spawn(spawn: &Spawn<'_>) -> io::Result<Process> {
    // While the number is taken here, no descriptor that the standard library opens for its own use can be where the child's goes.
    let _placeholder = fcntl(spawn.fd, FcntlArg::F_DUPFD_CLOEXEC(spawn.number))
        // SAFETY: the kernel has just opened it for this call alone.
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })?;
    // A descriptor that is opened now is not where the child's goes, either.
    let (program, _held) = spawn.program.to_execute()?;
    let mut command = Command::new(program);
    command
        // Code in the process can read it, and where the program lies is none of its business.
        .arg0(spawn.program.path().file_name().unwrap_or_default())
        .args(spawn.args)
        .env_clear()
        .envs(spawn.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        // Of its own, so that a Ctrl-C or a time limit on the terminal ends the node, which then ends its workers in order.
        .process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let (fd, number) = (spawn.fd.as_raw_fd(), spawn.number);
    // SAFETY: `set_up` makes system calls only, and neither allocates nor locks, as the time between fork and exec demands.
    unsafe { command.pre_exec(move || set_up(fd, number)) };
    let child = command.spawn()?;
    // The child is not reaped before `reap`, so the number cannot have been given to another process.
    match pidfd_open(child.id()) {
        Ok(pidfd) => Ok(Process { pid: child.id(), signaller: Signaller(Arc::new(pidfd)) }),
        Err(error) => {
            let mut child = child;
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Between fork and exec.
fn set_up(fd: i32, number: i32) -> io::Result<()> {
    // SAFETY: `prctl` with this option takes a signal number.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // Also those that a host left inheritable; the standard library still needs its own until exec, so they are marked, not closed.
    // SAFETY: changes flags of descriptors of this child only.
    Errno::result(unsafe { libc::close_range(3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) })?;
    if fd == number {
        // SAFETY: clears close-on-exec of a descriptor that is open.
        Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })?;
    } else {
        // SAFETY: both numbers are this child's own; what is closed is the placeholder or a host's, and goes at exec anyway.
        Errno::result(unsafe { libc::dup2(fd, number) })?;
    }
    Ok(())
}

const CLOSE_RANGE_CLOEXEC: libc::c_int = 4;

fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it, close-on-exec, and told nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Process {
    /// Its process id. Names the process until it is reaped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Makes the process one that the kernel ends sooner than this one when memory is out: by `score` above what this one has, at most 1000, of a scale on which 1000 is all
    /// of the memory.
    ///
    /// # Errors
    /// As writing to `/proc`; `InvalidData` where that says what is no number.
    pub fn sacrifice(&self, score: i32) -> io::Result<()> {
        let own = std::fs::read_to_string("/proc/self/oom_score_adj")?;
        let own: i32 =
            own.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        std::fs::write(
            format!("/proc/{}/oom_score_adj", self.pid),
            own.saturating_add(score).min(1000).to_string(),
        )
    }

    /// Waits for the end at most `timeout` (`None`: for ever), without reaping. True when it has come.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        poll::is_readable(self.as_fd(), timeout)
    }

    /// Whether a signal has stopped it, and none has continued it. Its descriptor says nothing of that.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        matches!(waitid(Id::PIDFd(self.as_fd()), flags), Ok(WaitStatus::Stopped(..)))
    }

    /// Sends `SIGKILL`. A process that has ended is no error.
    ///
    /// # Errors
    /// `EPERM` where the child has become somebody else.
    pub fn kill(&self) -> io::Result<()> {
        self.signaller.kill()
    }

    /// Sends a signal. A process that has ended is no error.
    ///
    /// # Errors
    /// As [`Signaller::send`].
    pub fn signal(&self, number: i32) -> io::Result<()> {
        self.signaller.send(number)
    }

    /// What signals it, for others to use beside this.
    #[must_use]
    pub fn signaller(&self) -> Signaller {
        self.signaller.clone()
    }

    /// Takes the exit status, waiting for the end; where somebody traces the process, until he lets go of it. The process id is free for others afterwards.
    ///
    /// # Errors
    /// None in ordinary use.
    pub fn reap(&self) -> io::Result<Exit> {
        self.take_status(WaitPidFlag::WEXITED).map(|exit| exit.unwrap_or(Exit::Unknown))
    }

    /// As [`reap`](Self::reap), without waiting. `None` where there is nothing to take yet: it has not ended, or it has, as its descriptor says, and somebody traces it.
    ///
    /// # Errors
    /// None in ordinary use.
    pub fn try_reap(&self) -> io::Result<Option<Exit>> {
        self.take_status(WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)
    }

    fn take_status(&self, flags: WaitPidFlag) -> io::Result<Option<Exit>> {
        loop {
            return match waitid(Id::PIDFd(self.as_fd()), flags) {
                Ok(WaitStatus::StillAlive) => Ok(None),
                Ok(WaitStatus::Exited(_, code)) => Ok(Some(Exit::Code(code))),
                Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Exit::Signal(signal as i32))),
                Ok(_) | Err(Errno::ECHILD) => Ok(Some(Exit::Unknown)),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

impl AsFd for Process {
    /// Readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signaller.0.as_fd()
    }
}

impl From<OwnedFd> for Signaller {
    /// Of a process descriptor.
    fn from(pidfd: OwnedFd) -> Self {
        Self(Arc::new(pidfd))
    }
}

impl Signaller {
    /// Of any process, by its number. That may have passed to another process before it was opened: look at whose it is afterwards, when it cannot change
    /// any more for this.
    ///
    /// # Errors
    /// `ESRCH` where there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(pidfd_open(pid)?.into())
    }

    /// Waits for the process's end at most `timeout` (`None`: for ever). True when it has come.
    ///
    /// # Errors
    /// As `poll(2)`.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        poll::is_readable(self.0.as_fd(), timeout)
    }

    /// Sends `SIGKILL`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn kill(&self) -> io::Result<()> {
        self.send(libc::SIGKILL)
    }

    /// The process's descriptor, to be passed on.
    #[must_use]
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }

    /// Sends a signal. A process that has ended is no error.
    ///
    /// # Errors
    /// `EINVAL` for a number that is no signal; `EPERM` where the child has become somebody else.
    pub fn send(&self, number: i32) -> io::Result<()> {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: takes numbers and a null pointer, which means ordinary signal information.
        let sent =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, nothing, 0) };
        match Errno::result(sent) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::socket;

    fn shell(script: &str, fd: BorrowedFd<'_>) -> Process {
        let (args, env) = (["-c".into(), script.into()], [("WORD".into(), "hello".into())]);
        let program = Program::hold(Path::new("/bin/sh")).unwrap();
        spawn(&Spawn { program: &program, args: &args, env: &env, fd, number: 3 }).unwrap()
    }

    #[test]
    fn a_child_gets_its_descriptor_and_environment_and_nothing_else() {
        let (mine, theirs) = socket::pair().unwrap();
        // As a host may have it: inheritable.
        let stray = nix::unistd::dup(theirs.as_fd()).unwrap();
        // No pipe, of which the shell has both ends for a moment.
        let script = "echo $WORD $HOME >&3; set -- /proc/$$/fd/*; echo $# >&3; pwd >&3; exit 7";
        let process = shell(script, theirs.as_fd());
        drop((theirs, stray));
        let mut buffer = [0; 64];
        // The fifth is of the folder, while the shell looks.
        for expected in ["hello\n", "5\n", "/\n", ""] {
            let packet = socket::recv(mine.as_fd(), &mut buffer, 0, Some(Duration::from_secs(60))).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..packet.len]).unwrap(), expected);
        }
        assert_eq!(process.reap().unwrap(), Exit::Code(7));
        assert_eq!(process.reap().unwrap(), Exit::Unknown);
        process.kill().unwrap();
    }

    #[test]
    fn a_killed_child_says_so() {
        let (_mine, theirs) = socket::pair().unwrap();
        let process = shell("read line <&3", theirs.as_fd());
        assert!(!process.wait(Some(Duration::from_millis(1))).unwrap());
        process.kill().unwrap();
        assert!(process.wait(None).unwrap());
        assert_eq!(process.reap().unwrap(), Exit::Signal(9));
        assert_eq!(Exit::Signal(9).to_string(), "SIGKILL");
    }

    #[test]
    fn a_stopped_child_says_so_until_it_is_continued() {
        let (_mine, theirs) = socket::pair().unwrap();
        let process = shell("read line <&3", theirs.as_fd());
        assert!(!process.is_stopped());
        process.signal(libc::SIGSTOP).unwrap();
        while !process.is_stopped() {
            std::thread::yield_now();
        }
        assert!(process.is_stopped(), "asking does not change it");
        process.signal(libc::SIGCONT).unwrap();
        assert!(!process.is_stopped());
        process.kill().unwrap();
        assert_eq!(process.reap().unwrap(), Exit::Signal(9));
    }

    /// As a debugger at its prompt. The pipes say that it has begun, and that it may end.
    #[test]
    fn a_child_that_is_traced_can_be_waited_for_and_is_reaped_later() {
        let (_mine, theirs) = socket::pair().unwrap();
        let process = shell("read line <&3", theirs.as_fd());
        let (near, far) = socket::pair().unwrap();
        let pid = libc::pid_t::try_from(process.pid()).unwrap();
        // SAFETY: the child makes system calls only.
        let tracer = match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let (null, mut word) = (std::ptr::null_mut::<libc::c_void>(), [0_u8]);
                // SAFETY: takes numbers.
                word[0] = u8::from(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, null, null) } == 0);
                // SAFETY: writes what lives.
                unsafe { libc::write(far.as_raw_fd(), word.as_ptr().cast(), 1) };
                // SAFETY: as above; the other end is closed when it is enough, but for this process's own.
                unsafe { libc::close(near.as_raw_fd()) };
                // SAFETY: there is room for a byte.
                unsafe { libc::read(far.as_raw_fd(), word.as_mut_ptr().cast(), 1) };
                // SAFETY: nothing of this process is the child's to clean up.
                unsafe { libc::_exit(0) }
            }
            nix::unistd::ForkResult::Parent { child } => child,
        };
        drop(far);
        let mut word = [0];
        socket::recv(near.as_fd(), &mut word, 0, Some(Duration::from_secs(60))).unwrap();
        process.kill().unwrap();
        assert!(process.wait(Some(Duration::from_secs(60))).unwrap());
        // A system may allow nobody to trace.
        if word == [1] {
            assert_eq!(process.try_reap().unwrap(), None);
        }
        drop(near);
        nix::sys::wait::waitpid(tracer, None).unwrap();
        assert_eq!(process.reap().unwrap(), Exit::Signal(9));
        assert_eq!(process.try_reap().unwrap(), Some(Exit::Unknown));
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let (_mine, theirs) = socket::pair().unwrap();
        let process = std::thread::spawn(move || shell("read line <&3", theirs.as_fd())).join().unwrap();
        assert_eq!(process.reap().unwrap(), Exit::Signal(9));
    }

    #[test]
    fn a_program_that_cannot_be_started_is_an_error() {
        let error = Program::hold(Path::new("/nonexistent/worker")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let (_mine, theirs) = socket::pair().unwrap();
        let program = Program::hold(Path::new("/etc/passwd")).unwrap();
        let error = spawn(&Spawn { program: &program, args: &[], env: &[], fd: theirs.as_fd(), number: 3 });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    /// As when a package is upgraded while its programs run.
    #[test]
    fn a_program_stays_what_it_was_when_another_is_put_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let put = |from: &str| {
            let new = folder.path().join("new");
            std::fs::copy(from, &new).unwrap();
            std::fs::rename(new, &path).unwrap();
        };
        put("/bin/true");
        let program = Program::hold(&path).unwrap();
        let exit = || {
            let (_mine, theirs) = socket::pair().unwrap();
            let fd = theirs.as_fd();
            spawn(&Spawn { program: &program, args: &[], env: &[], fd, number: 3 }).unwrap().reap().unwrap()
        };
        assert_eq!(exit(), Exit::Code(0));
        put("/bin/false");
        assert_eq!(exit(), Exit::Code(0));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(exit(), Exit::Code(0));
    }
}
