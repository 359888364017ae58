//! The signal that takes the rest of a long slice from a call. Its handler is in `alarms`.
//!
//! A call that is alone gets slices longer than a quantum. The worker [listens](listen) first, then announces to its hosts that it is about to be busy, then sets the
//! [limit]. Whoever submits a call meanwhile sends the signal; its handler makes the limit now, and suspends the call as the alarm's does. A poke that comes while
//! nobody listens is late, and changes nothing.
#![cfg_attr(test, expect(unsafe_code, reason = "calls that run for ever, and signals"))]

use std::io;
use std::sync::atomic::{Ordering, compiler_fence};

use libc::c_int;
use microfaas_sys::clock::cycles;

use crate::alarms::{DEAF, LISTENING, POKED, POKES, STATE, on_poke};
use crate::contain::set_handler;
use crate::timer;

/// SIGURG: a process that has no handler for it ignores it.
pub const SIGNAL: c_int = libc::SIGURG;

/// Installs the handler of [`SIGNAL`]. After [`timer::install`].
///
/// # Errors
/// Where the kernel refuses the handler.
pub fn install() -> io::Result<()> {
    STATE.store(DEAF, Ordering::Relaxed);
    set_handler(SIGNAL, on_poke)
}

/// From now on until [`ignore`] a poke counts. To be called before anybody is told that he may poke.
pub fn listen() {
    STATE.store(LISTENING, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
}

/// As [`timer::limit`], for a slice of a worker that listens: where a poke has come since, the limit is now.
pub fn limit(limit: u64) {
    timer::limit(limit);
    // A poke from here on finds the limit, and lowers it itself.
    compiler_fence(Ordering::SeqCst);
    if STATE.load(Ordering::Relaxed) == POKED {
        timer::limit(cycles());
    }
}

/// Pokes change nothing any more. To be called between calls.
pub fn ignore() {
    STATE.store(DEAF, Ordering::Relaxed);
}

/// Pokes so far that came while the worker listened.
#[must_use]
pub fn pokes() -> u64 {
    POKES.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicI32};
    use std::time::Duration;

    use super::*;
    use crate::timer::tests::{cycles_in, on_worker_thread};
    use crate::{Exit, STACK_BYTES_MIN, Stack, run};
    use std::ffi::c_void;

    /// What a call that runs for ever says of itself.
    #[derive(Default)]
    struct Runner {
        thread: AtomicI32,
        runs: AtomicBool,
    }

    unsafe extern "C" fn spin(argument: *mut c_void) -> u32 {
        // SAFETY: the test passes its own `Runner`.
        let runner = unsafe { &*argument.cast::<Runner>() };
        runner.runs.store(true, Ordering::Release);
        loop {
            std::hint::spin_loop();
        }
    }

    fn poke(thread: i32) {
        // SAFETY: takes three numbers.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, SIGNAL) };
        assert_eq!(sent, 0);
    }

    /// Runs a call for ever, with somebody who pokes as soon as it runs. Where `limit` is the latest, far away, the call was stopped by the poke.
    fn run_and_poke(limit: impl FnOnce()) -> Exit {
        let runner = Runner::default();
        // SAFETY: takes nothing.
        runner.thread.store(unsafe { libc::gettid() }, Ordering::Relaxed);
        let mut stack = Stack::new(STACK_BYTES_MIN).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !runner.runs.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                poke(runner.thread.load(Ordering::Relaxed));
            });
            limit();
            // SAFETY: the entry refers to the runner only, which outlives it.
            unsafe { run(&mut stack, spin, (&raw const runner).cast_mut().cast()) }
        })
    }

    #[test]
    fn a_poke_ends_a_long_slice() {
        on_worker_thread(|clock| {
            install().unwrap();
            for _ in 0..100 {
                let (far, before) = (cycles() + cycles_in(clock, Duration::from_secs(60)), pokes());
                let exit = run_and_poke(|| {
                    listen();
                    super::limit(far);
                });
                assert!(matches!(exit, Exit::Suspended(_)), "{exit:?}");
                assert!(cycles() < far, "the limit has ended it");
                assert_eq!(pokes(), before + 1);
                ignore();
            }
        });
    }

    #[test]
    fn a_poke_before_the_limit_is_set_is_not_lost() {
        on_worker_thread(|clock| {
            install().unwrap();
            let mut stack = Stack::new(STACK_BYTES_MIN).unwrap();
            let runner = Runner::default();
            for _ in 0..100 {
                let far = cycles() + cycles_in(clock, Duration::from_secs(60));
                listen();
                // SAFETY: takes nothing.
                poke(unsafe { libc::gettid() });
                super::limit(far);
                // SAFETY: the entry refers to the runner only, which outlives it.
                let exit = unsafe { run(&mut stack, spin, (&raw const runner).cast_mut().cast()) };
                assert!(matches!(exit, Exit::Suspended(_)), "{exit:?}");
                assert!(cycles() < far, "the limit has ended it");
                ignore();
            }
        });
    }

    #[test]
    fn a_late_poke_changes_nothing() {
        on_worker_thread(|clock| {
            install().unwrap();
            let before = pokes();
            for _ in 0..10 {
                let soon = cycles() + cycles_in(clock, Duration::from_millis(5));
                let exit = run_and_poke(|| timer::limit(soon));
                assert!(matches!(exit, Exit::Suspended(_)), "{exit:?}");
                assert!(cycles() >= soon, "the poke has ended it");
            }
            assert_eq!(pokes(), before);
        });
    }
}
