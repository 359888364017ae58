//! What the sandbox would consist of here, found out by a child process that enters it.
#![expect(unsafe_code, reason = "forks")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use microfaas_control::CONTROL_FD;
use microfaas_control::sandbox::{SandboxPolicy, SandboxReport};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, getpid, pipe};

use crate::rules::EVENTS;
use crate::{Keep, enter};

/// The report that a worker started by this process would send. For `microfaas doctor`.
///
/// # Errors
/// Where a mandatory layer is refused, in the words of [`SandboxError`](crate::SandboxError); out of processes or descriptors; and where the
/// process has more threads than one, as the child could then wait for ever for a lock that one of them had.
pub fn probe(policy: &SandboxPolicy) -> io::Result<SandboxReport> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("only a process with one thread can try the sandbox on"));
    }
    let (reader, writer) = pipe()?;
    let parent = getpid().as_raw().cast_unsigned();
    // SAFETY: there is no other thread that could hold a lock, as was found above; none starts meanwhile.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
            child(policy, &writer, parent)
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut text = Vec::new();
            let read = File::from(reader).read_to_end(&mut text);
            waitpid(child, None)?;
            read?;
            let answer: Result<SandboxReport, String> =
                microfaas_control::decode(&text).map_err(io::Error::other)?;
            answer.map_err(io::Error::other)
        }
    }
}

/// Enters the sandbox with the pipe in the places of the control socket and of a host's eventfd, the one thing that a sealed worker may write to.
fn child(policy: &SandboxPolicy, writer: &OwnedFd, node_pid: u32) -> ! {
    for number in [CONTROL_FD, EVENTS] {
        // SAFETY: nothing of the child uses the descriptors that may have had these numbers, but for the pipe.
        unsafe { libc::dup2(writer.as_raw_fd(), number) };
    }
    // SAFETY: just made, and open as long as the child lives; where they could not be made, entering fails.
    let control = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
    // SAFETY: as above.
    let event = unsafe { BorrowedFd::borrow_raw(EVENTS) };
    let keep = Keep { control, events: &[event], module: None, namespaces: &[], node_pid };
    // SAFETY: the child uses no descriptor but these.
    let answer = unsafe { enter(policy, &keep) };
    let answer = answer.map(|sealed| sealed.report).map_err(|error| error.to_string());
    if let Ok(text) = microfaas_control::encode(&answer) {
        let _ = nix::unistd::write(event, &text);
    }
    // Ends by SIGSYS where it is sealed.
    // SAFETY: nothing of this process is to be cleaned up.
    unsafe { libc::_exit(0) }
}
