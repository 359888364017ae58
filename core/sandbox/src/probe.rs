//! What the sandbox would consist of here, found out by a child process that enters it.
#![expect(unsafe_code, reason = "forks")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use microfaas_control::sandbox::{SandboxPolicy, SandboxReport};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, getpid, pipe};

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

/// Enters the sandbox with the pipe in the place of a host's eventfd, the one thing that a sealed worker may write to.
fn child(policy: &SandboxPolicy, writer: &OwnedFd, node_pid: u32) -> ! {
    let keep = Keep { control: writer.as_fd(), events: &[writer.as_fd()], module: None, node_pid };
    // SAFETY: the child uses no descriptor but this one.
    let answer = unsafe { enter(policy, &keep) };
    let answer = answer.map(|sealed| sealed.report).map_err(|error| error.to_string());
    if let Ok(text) = microfaas_control::encode(&answer) {
        let _ = nix::unistd::write(writer, &text);
    }
    // Ends by SIGSYS where it is sealed.
    // SAFETY: nothing of this process is to be cleaned up.
    unsafe { libc::_exit(0) }
}
