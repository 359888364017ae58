//! How a sleeping side is woken, without a system call while nobody sleeps.
//!
//! Three words, seen from a sleeper and a ringer: the *epoch*, written by the sleeper, odd while it sleeps or is about
//! to; the *bell*, written by the ringer, which the sleeper waits on; and *rung*, private to the ringer, the last epoch it rang for.
//!
//! ```text
//! sleeper                                   ringer
//! seen <- bell                              publish the entry
//! epoch <- next odd                         fence(SeqCst)
//! fence(SeqCst)                             e <- epoch
//! look at the ring again; if empty:         if e is odd and e != rung:
//!     wait while bell == seen, bounded          rung <- e; bell += 1; wake all
//! epoch <- next even
//! ```
//!
//! [`Epoch::nap`] is the sleeper's part up to the wait, in this order. Either the sleeper's second look sees the entry, or the ringer sees
//! the odd epoch: the fences forbid both from missing (SYNC POINT C). Epochs only grow, so each nap is rung for at most once, however
//! many entries are published during it.
//!
//! The bell is read *before* the epoch is published (SYNC POINT F), so that a ring for this nap always ends it. Read afterwards, the one ring of the nap
//! may already be in `seen` while the entry at the head of the ring is still missing: of two submitters the one with the later position has
//! published and rung, and the other finds the nap rung for. The sleeper would then wait for its time limit with two entries in the ring;
//! with one ringer whose entries come in order this cannot happen.
//!
//! With an eventfd the bell is the descriptor's counter, and only epoch and rung are used.
//!
//! A sleeper that is about to be busy for long instead announces that in the same word ([`Epoch::engage`]) and by the same steps; then the ringer has to interrupt
//! it, since no bell reaches it ([`Wish`]). One word for both: the ringer decides on one copy, and looks at no other line.
//!
//! Several event loops of a host may sleep on one eventfd: each moves the epoch to a new odd value ([`Epoch::doze_shared`]), so that a later sleeper is rung
//! for as well.
//!
//! The other side may be hostile: it can ring without cause, which costs a look, or never, so every
//! wait is bounded by the caller, who looks again.

use crate::sync::{AtomicU32, Ordering, full_fence, mutant};

/// Bit of an epoch: its owner wants to be told, so the word is odd.
const TOLD: u32 = 1;
/// Bit of an epoch: its owner does not sleep but is busy.
const BUSY: u32 = 2;
/// What is counted lies above the bits.
const STEP: u32 = 4;

/// How the owner of an odd epoch is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It sleeps, or is about to: ring.
    Ring,
    /// It is busy, or is about to be: interrupt it.
    Interrupt,
}

/// The sleeper's word.
#[repr(transparent)]
#[derive(Debug)]
pub struct Epoch(AtomicU32);

/// The ringer's word, which the sleeper waits on.
#[repr(transparent)]
#[derive(Debug)]
pub struct Bell(AtomicU32);

impl Default for Epoch {
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl Default for Bell {
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

fn sleeper_fence() {
    if !mutant("doorbell_no_sleeper_fence") {
        full_fence();
    }
}

impl Epoch {
    /// Announces a nap of the only sleeper. [`Bell::seen`] comes before this, another look at the ring after it, then the wait.
    /// With an eventfd: it must not be drained between this and the wait.
    #[inline]
    pub fn doze(&self) {
        // SYNC POINT F: pairs with the acquire in `wish`; the bell was read before it moves for this nap.
        self.0.store(next(self.current(), TOLD), Ordering::Release);
        // SYNC POINT C, sleeper's side.
        sleeper_fence();
    }

    /// Announces that the only sleeper is about to be busy, unless `ready` after all: then it has something else to do. Whoever finds the announcement interrupts it,
    /// from this call on. Either way [`wake`](Self::wake) comes afterwards.
    #[inline]
    #[must_use]
    pub fn engage(&self, ready: impl FnOnce() -> bool) -> bool {
        let bits = if mutant("doorbell_engage_as_nap") { TOLD } else { TOLD | BUSY };
        // Release: what makes an interruption count was done before.
        self.0.store(next(self.current(), bits), Ordering::Release);
        // SYNC POINT C, sleeper's side.
        sleeper_fence();
        mutant("doorbell_engage_no_second_look") || !ready()
    }

    /// Ends the nap, or the work, of the only sleeper.
    #[inline]
    pub fn wake(&self) {
        self.0.store(self.current() & !(TOLD | BUSY), Ordering::Relaxed);
    }

    /// Announces a nap where several threads may sleep on the same epoch: always a new odd value. None of them ends it, which would silence the others: that costs the
    /// ringer at most one needless ring for each nap.
    #[inline]
    pub fn doze_shared(&self) {
        // From the first one on it stays odd.
        self.0.fetch_or(TOLD, Ordering::Relaxed);
        if !mutant("doorbell_shared_epoch") {
            // SYNC POINT F: as in `doze`; a later sleeper's addition keeps what an earlier one released.
            self.0.fetch_add(STEP, Ordering::Release);
        }
        // SYNC POINT C, sleeper's side.
        sleeper_fence();
    }

    /// Announces a nap of the only sleeper and says what to wait for: while `bell` has the value returned. `None` if `ready` after all.
    /// Either way [`wake`](Self::wake) comes afterwards.
    #[inline]
    #[must_use]
    pub fn nap(&self, bell: &Bell, ready: impl FnOnce() -> bool) -> Option<u32> {
        let seen = bell.seen();
        self.doze();
        if mutant("doorbell_no_second_look") {
            return Some(seen);
        }
        if ready() { None } else { Some(bell_late(bell, seen)) }
    }

    /// For its only sleeper.
    fn current(&self) -> u32 {
        self.0.own()
    }
}

/// The announcement after `now`, with these bits: none is like the one before.
fn next(now: u32, bits: u32) -> u32 {
    (now & !(TOLD | BUSY)).wrapping_add(STEP) | bits
}

/// In place of `seen`, what a sleeper would have that reads the bell at the end.
fn bell_late(bell: &Bell, seen: u32) -> u32 {
    if mutant("doorbell_bell_late") { bell.seen() } else { seen }
}

impl Bell {
    /// The value to wait on, read before [`Epoch::doze`]; see the module. [`Epoch::nap`] does it.
    ///
    /// Relaxed, like [`ring`](Self::ring): a bell that moved only ends the wait, and what it was moved for is found by the look after
    /// the next nap's fence at the latest.
    #[inline]
    #[must_use]
    pub fn seen(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Moves the bell; the caller then wakes all who wait on it.
    #[inline]
    pub fn ring(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The word, for the futex call.
    #[inline]
    #[must_use]
    pub fn word(&self) -> &AtomicU32 {
        &self.0
    }
}

/// What the ringer remembers in private memory.
#[derive(Debug)]
pub struct Ringer {
    rung: AtomicU32,
}

impl Default for Ringer {
    fn default() -> Self {
        Self { rung: AtomicU32::new(0) }
    }
}

impl Ringer {
    /// Orders a published entry before the looks at epochs that follow; once for any number of [`due`](Self::due).
    #[inline]
    pub fn published() {
        // SYNC POINT C, ringer's side.
        if !mutant("doorbell_no_ringer_fence") {
            full_fence();
        }
    }

    /// Whether the other side sleeps and has not been rung for this nap; then the caller must ring.
    /// To be called after [`published`](Self::published).
    #[inline]
    #[must_use]
    pub fn due(&self, epoch: &Epoch) -> bool {
        self.wish(epoch).is_some()
    }

    /// As [`due`](Self::due), for a sleeper that may be busy instead: what the caller must do.
    #[inline]
    #[must_use]
    pub fn wish(&self, epoch: &Epoch) -> Option<Wish> {
        // SYNC POINT F: pairs with the release in `doze`.
        let now = epoch.0.load(Ordering::Acquire);
        if now & TOLD == 0 || !self.is_new(now) {
            return None;
        }
        Some(if now & BUSY == 0 { Wish::Ring } else { Wish::Interrupt })
    }

    /// Notes an epoch; false where it was noted already.
    fn is_new(&self, epoch: u32) -> bool {
        if mutant("doorbell_rung_without_epoch") {
            return self.rung.swap(1, Ordering::Relaxed) == 0;
        }
        self.rung.swap(epoch, Ordering::Relaxed) != epoch
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_nap_is_rung_for_once() {
        let (epoch, ringer) = (Epoch::default(), Ringer::default());
        assert!(!ringer.due(&epoch));
        epoch.doze();
        assert!(ringer.due(&epoch));
        assert!(!ringer.due(&epoch));
        epoch.wake();
        assert!(!ringer.due(&epoch));
        epoch.doze();
        assert!(ringer.due(&epoch));
    }

    #[test]
    fn who_is_busy_is_interrupted_once_and_rung_for_when_it_sleeps() {
        let (epoch, ringer) = (Epoch::default(), Ringer::default());
        assert!(!epoch.engage(|| true));
        epoch.wake();
        assert_eq!(ringer.wish(&epoch), None);
        assert!(epoch.engage(|| false));
        assert_eq!(ringer.wish(&epoch), Some(Wish::Interrupt));
        assert_eq!(ringer.wish(&epoch), None);
        epoch.wake();
        assert_eq!(ringer.wish(&epoch), None);
        epoch.doze();
        assert_eq!(ringer.wish(&epoch), Some(Wish::Ring));
        epoch.wake();
        assert!(epoch.engage(|| false));
        assert_eq!(ringer.wish(&epoch), Some(Wish::Interrupt), "another work than the last");
    }

    #[test]
    fn a_second_sleeper_is_rung_for_too() {
        let (epoch, ringer) = (Epoch::default(), Ringer::default());
        epoch.doze_shared();
        assert!(ringer.due(&epoch));
        epoch.doze_shared();
        assert!(ringer.due(&epoch));
        assert!(!ringer.due(&epoch));
    }
}
