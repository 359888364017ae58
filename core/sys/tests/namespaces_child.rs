//! What becomes of the child that makes namespaces, in a program that does things of its own after each fork and has handlers for signals.
#![expect(unsafe_code, reason = "a handler for a signal, and one for forks")]

use std::io::ErrorKind;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use microfaas_sys::namespaces::Shared;
use microfaas_sys::privileges;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// More than any error number.
const HANDLED: i32 = 200;
/// What the next child sends to itself.
static SENDS: AtomicI32 = AtomicI32::new(0);

extern "C" fn handler(_: libc::c_int) {
    // SAFETY: ends the child, whatever it was doing.
    unsafe { libc::_exit(HANDLED) }
}

/// The C library has each child call this before anything else.
extern "C" fn begins() {
    // SAFETY: sends a signal to this thread.
    unsafe { libc::raise(SENDS.load(Ordering::Relaxed)) };
}

fn blocked() -> SigSet {
    SigSet::thread_get_mask().expect("it has one")
}

#[test]
fn the_child_handles_no_signal_and_is_not_waited_for_for_ever() {
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes one system call.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("there may be one");
    // SAFETY: what is called in children makes system calls only.
    assert_eq!(unsafe { libc::pthread_atfork(None, None, Some(begins)) }, 0);
    let (user, before) = (!privileges::is_root(), blocked());

    SENDS.store(libc::SIGUSR1, Ordering::Relaxed);
    let made = Shared::make(user, Duration::from_secs(600));
    // A system may refuse namespaces, with a number of its own.
    assert_ne!(made.err().and_then(|error| error.raw_os_error()), Some(HANDLED), "it was handled twice");
    assert_eq!(blocked(), before, "who makes them has its signals as before");

    SENDS.store(libc::SIGSTOP, Ordering::Relaxed);
    let stopped = Shared::make(user, Duration::from_millis(50));
    assert_eq!(stopped.expect_err("it does nothing").kind(), ErrorKind::TimedOut);
    let none = nix::sys::wait::waitpid(None, None);
    assert_eq!(none, Err(nix::errno::Errno::ECHILD), "no child is left");
}
