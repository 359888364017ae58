//! What the standard library has no safe form of: a handler of a signal, and a child that is a copy of its parent.
#![expect(unsafe_code, reason = "a handler of a signal, and fork")]

use nix::libc::{_exit, c_int};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, Pid, fork};

extern "C" fn nothing(_: c_int) {}

/// From now on this signal does nothing but interrupt what its thread waits for: no system call is begun anew after it.
///
/// # Errors
/// As `sigaction(2)`.
pub fn let_interrupt(signal: Signal) -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it may run at any point of any thread.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Starts a child that is a copy of this process, with its descriptors and one thread, and does this there, and no more.
///
/// # Errors
/// As `fork(2)`.
pub fn fork_and(then: impl FnOnce()) -> nix::Result<Pid> {
    // SAFETY: whatever the child does that may not be done between fork and the end of a process with threads, such as to wait for a lock that one of those has, harms the
    // child alone, and whoever has started it does not count on it.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            then();
            // SAFETY: ends the child, and runs nothing of what its parent has left to be done at its end.
            unsafe { _exit(0) }
        }
    }
}
