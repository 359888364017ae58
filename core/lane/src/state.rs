//! The state of the call in a slot: one shared word, moved by compare-and-swap.
//!
//! | state | left by | to | meaning |
//! | --- | --- | --- | --- |
//! | any | host | QUEUED | the host owns the slot and publishes a new generation |
//! | QUEUED | worker | STARTED | the worker has begun; the host can no longer take the call back |
//! | QUEUED | host | CANCELLED | the host has taken the call back; the worker will not run it |
//! | STARTED | worker | DONE | the response is written |
//!
//! The word carries the slot's generation, so a late compare-and-swap from an earlier call of the slot cannot
//! succeed. Whatever the host finds here is advice from a hostile side: it decides whether a call is reported
//! as never started, not whether memory is safe. A slot is free again when its *completion* was read, cancelled or not.

use crate::sync::{AtomicU64, Ordering, mutant};

/// The code in the lower half of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Written by the host, not yet looked at.
    Queued = 1,
    /// The worker runs it.
    Started = 2,
    /// The host has taken it back.
    Cancelled = 3,
    /// The worker has finished it.
    Done = 4,
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
    /// Host: opens a new generation. The submission that follows publishes it (its release store is ordered behind this one).
    #[inline]
    pub fn queue(&self, generation: u32) {
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

    /// Worker: the response is written.
    #[inline]
    pub fn finish(&self, generation: u32) {
        self.0.store(word(generation, Phase::Done), Ordering::Release);
    }

    /// What the word says of this generation; `None` for anything else.
    #[inline]
    #[must_use]
    pub fn phase(&self, generation: u32) -> Option<Phase> {
        let seen = self.0.load(Ordering::Acquire);
        [Phase::Queued, Phase::Started, Phase::Cancelled, Phase::Done]
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
        state.queue(7);
        assert_eq!(state.start(7), Start::Yours);
        assert!(!state.take_back(7));
        state.finish(7);
        assert_eq!(state.phase(7), Some(Phase::Done));
        state.queue(8);
        assert!(!state.take_back(7), "an old generation must not cancel a new call");
        assert!(state.take_back(8));
        assert_eq!(state.start(8), Start::TakenBack);
        assert_eq!(state.phase(7), None);
    }
}
