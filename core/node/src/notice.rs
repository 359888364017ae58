//! How the owner of a call learns that it was settled by another thread: private memory of the host, one [`Note`] for each slot.
//!
//! Owner: say what it waits by ([`Note::expect`]), fence, look for the outcome again, then wait. Settler: record the outcome, fence, look whether
//! anybody waits ([`Note::tell`]). Either the owner's second look finds the outcome or the settler finds the owner.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::task::Waker;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use microfaas_sys::futex;

use crate::names::Entry;

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

/// What a call has been through, and whose it is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct History(u32);

const NAME: u32 = 0xffff;
const MOVES_SHIFT: u32 = 16;
const MOVES: u32 = 0xff << MOVES_SHIFT;
const RETRY: u32 = 1 << 24;
const LEFT: u32 = 1 << 25;
const LIMITED: u32 = 1 << 26;
const IDEMPOTENT: u32 = 1 << 27;

const _: () = assert!(crate::names::NAMES_MAX <= NAME as usize + 1);

impl History {
    /// Of a call of the function of this name that is submitted for the first time. `limited`: it counts against the function's limit.
    #[inline]
    pub(crate) const fn new(name: u32, limited: bool) -> Self {
        Self(name & NAME | if limited { LIMITED } else { 0 })
    }

    /// Of this function, as it is when the call is submitted.
    #[inline]
    pub(crate) const fn of(self, function: Entry) -> Self {
        Self(self.0 & !IDEMPOTENT | if function.is_idempotent { IDEMPOTENT } else { 0 })
    }

    pub(crate) const fn name(self) -> u32 {
        self.0 & NAME
    }

    /// How often it has changed its worker.
    pub(crate) const fn moves(self) -> u32 {
        (self.0 & MOVES) >> MOVES_SHIFT
    }

    /// Whether an earlier attempt may have run.
    pub(crate) const fn is_retry(self) -> bool {
        self.0 & RETRY != 0
    }

    /// Whether it is looked after in another lane.
    pub(crate) const fn has_left(self) -> bool {
        self.0 & LEFT != 0
    }

    /// Whether the version that it was submitted to may be run again.
    pub(crate) const fn is_idempotent(self) -> bool {
        self.0 & IDEMPOTENT != 0
    }

    pub(crate) const fn is_limited(self) -> bool {
        self.0 & LIMITED != 0
    }

    /// After another move.
    pub(crate) const fn moved(self, may_have_run: bool) -> Self {
        let moves = if self.0 & MOVES == MOVES { self.0 } else { self.0 + (1 << MOVES_SHIFT) };
        Self(moves & !LEFT | if may_have_run { RETRY } else { 0 })
    }
}

/// What the host knows of the call in a slot beside the lane's own record.
#[repr(align(64))]
#[derive(Debug, Default)]
pub(crate) struct Note {
    expect: AtomicU32,
    word: AtomicU32,
    waker: AtomicWaker,
    /// When it was submitted, and when its caller gives up: `CLOCK_MONOTONIC`.
    submitted_ns: AtomicU64,
    deadline_ns: AtomicU64,
    /// Which function it calls.
    pub(crate) function: AtomicU32,
    /// Bytes touched in the slot's large request and overflow buffers since they were last given back.
    pub(crate) request_touched: AtomicU32,
    pub(crate) response_touched: AtomicU32,
    history: AtomicU32,
}

const _: () = assert!(size_of::<Note>() == 64);

impl Note {
    /// Owner: before a call is submitted in the slot.
    pub(crate) fn open(&self, function: u32, submitted_ns: u64, deadline_ns: u64, history: History) {
        self.expect.store(Expect::Nothing as u32, Ordering::Relaxed);
        self.submitted_ns.store(submitted_ns, Ordering::Relaxed);
        self.deadline_ns.store(deadline_ns, Ordering::Relaxed);
        self.function.store(function, Ordering::Relaxed);
        self.history.store(history.0, Ordering::Relaxed);
    }

    pub(crate) fn submitted_ns(&self) -> u64 {
        self.submitted_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn history(&self) -> History {
        History(self.history.load(Ordering::Relaxed))
    }

    /// Reader of the completions: the call goes on in another lane.
    pub(crate) fn leaves(&self) {
        self.history.store(self.history.load(Ordering::Relaxed) | LEFT, Ordering::Relaxed);
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
