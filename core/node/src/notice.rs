//! How the owner of a call learns that it was settled by another thread: private memory of the host, one [`Note`] for each slot.
//!
//! Owner: say what it waits by ([`Note::expect`]), fence, look for the outcome again, then wait. Settler: record the outcome, fence, look whether
//! anybody waits ([`Note::tell`]). Either the owner's second look finds the outcome or the settler finds the owner.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::task::Waker;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use microfaas_sys::futex;

/// What the owner waits by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Expect {
    /// It does not wait.
    Nothing = 0,
    /// It sleeps on the note's word.
    Word = 1,
    /// It leads: sleeps on the lane's bell.
    Bell = 2,
    /// It has left a waker.
    Waker = 3,
}

/// What the host knows of the call in a slot beside the lane's own record.
#[repr(align(64))]
#[derive(Debug, Default)]
pub(crate) struct Note {
    expect: AtomicU32,
    word: AtomicU32,
    waker: AtomicWaker,
    /// When it was submitted, and when its caller gives up: `CLOCK_MONOTONIC`.
    pub(crate) submitted_ns: AtomicU64,
    pub(crate) deadline_ns: AtomicU64,
    /// Which function it calls.
    pub(crate) function: AtomicU32,
    /// Bytes touched in the slot's large request and overflow buffers since they were last given back.
    pub(crate) request_touched: AtomicU32,
    pub(crate) response_touched: AtomicU32,
}

impl Note {
    /// Owner: before a call is submitted in the slot.
    pub(crate) fn open(&self, function: u32, submitted_ns: u64, deadline_ns: u64) {
        self.expect.store(Expect::Nothing as u32, Ordering::Relaxed);
        self.submitted_ns.store(submitted_ns, Ordering::Relaxed);
        self.deadline_ns.store(deadline_ns, Ordering::Relaxed);
        self.function.store(function, Ordering::Relaxed);
    }

    /// Owner: announces how it is going to wait. To be followed by another look at the outcome.
    pub(crate) fn expect(&self, how: Expect) {
        self.expect.store(how as u32, Ordering::Relaxed);
        // Pairs with the fence of whoever calls `tell`.
        fence(Ordering::SeqCst);
    }

    /// Owner: will wait no more.
    pub(crate) fn expect_nothing(&self) {
        self.expect.store(Expect::Nothing as u32, Ordering::Relaxed);
    }

    /// Owner: leaves a waker, then as [`expect`](Self::expect).
    pub(crate) fn leave_waker(&self, waker: &Waker) {
        self.waker.register(waker);
        self.expect(Expect::Waker);
    }

    /// Owner: the value to sleep on, read before the second look.
    pub(crate) fn seen(&self) -> u32 {
        self.word.load(Ordering::Acquire)
    }

    /// Owner: sleeps until [`nudge`](Self::nudge), at most `time`; may return early.
    pub(crate) fn sleep(&self, seen: u32, time: Duration) {
        // Whatever ends the wait, the caller looks again.
        let _ = futex::wait(&self.word, seen, time);
    }

    /// Wakes an owner that sleeps on the word.
    pub(crate) fn nudge(&self) {
        self.word.fetch_add(1, Ordering::Release);
        let _ = futex::wake_all(&self.word);
    }

    /// Settler, after a `SeqCst` fence behind the outcome: wakes an owner that sleeps or has left a waker. True where the owner leads,
    /// and the caller has to ring the lane's bell.
    #[must_use]
    pub(crate) fn tell(&self) -> bool {
        let expect = self.expect.load(Ordering::Relaxed);
        if expect == Expect::Word as u32 {
            self.nudge();
        } else if expect == Expect::Waker as u32 {
            self.waker.wake();
        }
        expect == Expect::Bell as u32
    }

    /// Whether the owner sleeps on the note's word.
    pub(crate) fn sleeps(&self) -> bool {
        self.expect.load(Ordering::Relaxed) == Expect::Word as u32
    }
}
