//! Waiting on and waking from a word of shared memory. See `futex(2)` and `futex_waitv` in the kernel's documentation.
//!
//! All of it is for words shared between processes (no `FUTEX_PRIVATE_FLAG`); waiting needs only read access to the word.
#![expect(unsafe_code, reason = "raw futex calls")]

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Most words that [`wait_any`] takes: the kernel's `FUTEX_WAITV_MAX`.
pub const WAIT_ANY_MAX: usize = 128;

/// Why a wait ended. It says nothing about the word: look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Somebody woke the word, or nobody did: wakes may be spurious.
    Wake,
    /// The word was not as expected.
    Changed,
    /// The time was up.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

fn classify(result: libc::c_long) -> io::Result<Woken> {
    if result >= 0 {
        return Ok(Woken::Wake);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Ok(Woken::Changed),
        Some(libc::ETIMEDOUT) => Ok(Woken::TimedOut),
        Some(libc::EINTR) => Ok(Woken::Interrupted),
        _ => Err(error),
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(time.subsec_nanos()),
    }
}

/// Waits while `*word == expected`, at most `timeout`.
///
/// # Errors
/// None in ordinary use; the kernel's word for anything else.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) -> io::Result<Woken> {
    let timeout = timespec(timeout);
    let nothing = std::ptr::null::<u32>();
    // SAFETY: FUTEX_WAIT reads the word, which lives as long as the borrow, and the timeout, which outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &raw const timeout,
            nothing,
            0,
        )
    };
    classify(result)
}

/// Wakes every waiter of the word. With the widest mask and no count, since a hostile waiter could swallow a single wake.
///
/// # Errors
/// None in ordinary use.
///
/// # Async-signal safety
/// Yes.
pub fn wake_all(word: &AtomicU32) -> io::Result<usize> {
    // SAFETY: FUTEX_WAKE uses the address only as a key; the word lives as long as the borrow.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    usize::try_from(woken).map_err(|_| io::Error::last_os_error())
}

/// A word to wait on and the value that it is expected to have.
#[derive(Debug, Clone, Copy)]
pub struct Waiter<'a> {
    /// The word.
    pub word: &'a AtomicU32,
    /// Its expected value.
    pub expected: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct FutexWaitv {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const FUTEX2_SIZE_U32: u32 = 2;

/// Waits while every word is as expected, at most until `deadline_ns` of `CLOCK_MONOTONIC`. Linux 5.16.
///
/// # Errors
/// `EINVAL` for no words or more than [`WAIT_ANY_MAX`]; `ENOSYS` on an older kernel.
pub fn wait_any(waiters: &[Waiter<'_>], deadline_ns: u64) -> io::Result<Woken> {
    if waiters.is_empty() || waiters.len() > WAIT_ANY_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut list = [FutexWaitv { value: 0, address: 0, flags: FUTEX2_SIZE_U32, reserved: 0 }; WAIT_ANY_MAX];
    for (entry, waiter) in list.iter_mut().zip(waiters) {
        entry.value = u64::from(waiter.expected);
        entry.address = waiter.word.as_ptr().addr() as u64;
    }
    let deadline = timespec(Duration::from_nanos(deadline_ns));
    // SAFETY: the kernel reads `waiters.len()` entries, which are initialised, and the deadline; the words live as long as the borrows.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            list.as_ptr(),
            waiters.len(),
            0,
            &raw const deadline,
            libc::CLOCK_MONOTONIC,
        )
    };
    classify(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic_ns;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_changed_word_and_a_timeout_end_the_wait() {
        let word = AtomicU32::new(1);
        assert_eq!(wait(&word, 0, Duration::from_secs(60)).unwrap(), Woken::Changed);
        assert_eq!(wait(&word, 1, Duration::from_millis(1)).unwrap(), Woken::TimedOut);
        let waiters = [Waiter { word: &word, expected: 1 }];
        assert_eq!(wait_any(&waiters, monotonic_ns() + 1_000_000).unwrap(), Woken::TimedOut);
        assert!(wait_any(&[], 0).is_err());
    }

    #[test]
    fn a_wake_on_either_word_ends_a_wait_on_both() {
        static WORDS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
        let sleeper = std::thread::spawn(|| {
            let deadline = monotonic_ns() + 60_000_000_000;
            while WORDS[1].load(Ordering::Acquire) == 0 {
                let waiters = WORDS.each_ref().map(|word| Waiter { word, expected: 0 });
                assert_ne!(wait_any(&waiters, deadline).unwrap(), Woken::TimedOut, "the wake was lost");
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        WORDS[1].store(1, Ordering::Release);
        wake_all(&WORDS[1]).unwrap();
        sleeper.join().unwrap();
    }
}
