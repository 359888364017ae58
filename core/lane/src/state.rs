//! The state of the call in a slot: one shared word, moved by compare-and-swap.
//!
//! | state | left by | to | meaning |
//! | --- | --- | --- | --- |
//! | QUEUED | worker | STARTED | the worker has begun; the host can no longer take the call back |
//! | QUEUED | host | CANCELLED | the host has taken the call back; the worker will not run it |
//! | STARTED, CANCELLED | worker | QUEUED, next generation | the response is written: the call is done |
//!
//! A slot's word is QUEUED for the first generation when the lane is made, and the worker makes it QUEUED for the next one when it is done with a call. So
//! submitting does not touch it: its line stays with the worker, and moves only where a call is taken back. The word carries the slot's generation, so a late compare-and-swap from an earlier call of the slot cannot
//! succeed. Whatever the host finds here is advice from a hostile side: it decides whether a call is reported
//! as never started, not whether memory is safe. A slot is free again when its *completion* was read, cancelled or not.

use crate::sync::{AtomicU64, Ordering, mutant};

/// The code in the lower half of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// The worker has not started it; it need not even have been submitted.
    Queued = 1,
    /// The worker runs it.
    Started = 2,
    /// The host has taken it back.
    Cancelled = 3,
}

/// What the worker learns when it wants to start a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Start {
    /// It is the worker's to run.
    Yours,
    /// The host took it back; complete it as cancelled without running it.
    TakenBack,
}

/// The shared word.
#[repr(transparent)]
#[derive(Debug)]
pub struct CallState(AtomicU64);

const fn word(generation: u32, phase: Phase) -> u64 {
    (generation as u64) << 32 | phase as u64
}

impl Default for CallState {
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl CallState {
    /// Host: makes the word ready for its first call, before the worker has the lane.
    pub fn prepare(&self, generation: u32) {
        self.0.store(word(generation, Phase::Queued), Ordering::Relaxed);
    }

    /// Worker: takes the call, unless the host has taken it back.
    #[inline]
    pub fn start(&self, generation: u32) -> Start {
        if mutant("state_start_unchecked") {
            self.0.store(word(generation, Phase::Started), Ordering::Release);
            return Start::Yours;
        }
        let queued = word(generation, Phase::Queued);
        let started = word(generation, Phase::Started);
        // SYNC POINT B: one of `start` and `take_back` wins.
        match self.0.compare_exchange(queued, started, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Start::Yours,
            Err(_) => Start::TakenBack,
        }
    }

    /// Host: takes the call back. True when the worker had not started it and now never will.
    #[inline]
    #[must_use]
    pub fn take_back(&self, generation: u32) -> bool {
        let queued = word(generation, Phase::Queued);
        let cancelled = word(generation, Phase::Cancelled);
        if mutant("state_any_generation") {
            let seen = self.0.load(Ordering::Acquire);
            let same = seen & 0xffff_ffff == u64::from(Phase::Queued as u32);
            return same
                && self.0.compare_exchange(seen, cancelled, Ordering::AcqRel, Ordering::Acquire).is_ok();
        }
        if mutant("state_take_back_unchecked") {
            let seen = self.0.load(Ordering::Acquire);
            self.0.store(cancelled, Ordering::Release);
            return seen == queued;
        }
        // SYNC POINT B: one of `start` and `take_back` wins.
        self.0.compare_exchange(queued, cancelled, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Worker: the response is written, and the next call of the slot may be taken back or started.
    #[inline]
    pub fn finish(&self, generation: u32) {
        self.0.store(word(generation.wrapping_add(1), Phase::Queued), Ordering::Release);
    }

    /// What the word says of this generation; `None` for anything else, as when it is done.
    #[inline]
    #[must_use]
    pub fn phase(&self, generation: u32) -> Option<Phase> {
        let seen = self.0.load(Ordering::Acquire);
        [Phase::Queued, Phase::Started, Phase::Cancelled]
            .into_iter()
            .find(|phase| seen == word(generation, *phase))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_side_wins_and_generations_do_not_mix() {
        let state = CallState::default();
        state.prepare(7);
        assert_eq!(state.start(7), Start::Yours);
        assert!(!state.take_back(7));
        state.finish(7);
        assert_eq!(state.phase(7), None);
        assert_eq!(state.phase(8), Some(Phase::Queued));
        assert!(!state.take_back(7), "an old generation must not cancel a new call");
        assert!(state.take_back(8));
        assert_eq!(state.start(8), Start::TakenBack);
        assert_eq!(state.phase(7), None);
    }
}
