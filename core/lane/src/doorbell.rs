//! How a sleeping side is woken, without a system call while nobody sleeps.
//!
//! Three words, seen from a sleeper and a ringer: the *epoch*, written by the sleeper, odd while it sleeps or is about
//! to; the *bell*, written by the ringer, which the sleeper waits on; and *rung*, private to the ringer, the last epoch it rang for.
//!
//! ```text
//! sleeper                                   ringer
//! epoch <- next odd                         publish the entry
//! fence(SeqCst)                             fence(SeqCst)
//! seen <- bell                              e <- epoch
//! look at the ring again; if empty:         if e is odd and e != rung:
//!     wait while bell == seen, bounded          rung <- e; bell += 1; wake all
//! epoch <- next even
//! ```
//!
//! [`Epoch::nap`] is the sleeper's part up to the wait, in the right order.
//!
//! Either the sleeper's second look sees the entry, or the ringer sees the odd epoch: the fences forbid both from missing
//! (SYNC POINT C). In the second case the bell moves after `seen` was read, so the wait returns. Epochs only grow, so each nap is rung
//! for at most once, however many entries are published during it.
//!
//! With an eventfd the bell is the descriptor's counter, and only epoch and rung are used.
//!
//! Several threads of a host may sleep on one bell: each moves the epoch to a new odd value ([`Epoch::doze_shared`]), so that a later sleeper is rung
//! for as well.
//!
//! The other side may be hostile: it can ring without cause, which costs a look, or never, so every
//! wait is bounded by the caller, who looks again.

use crate::sync::{AtomicU32, Ordering, fence, mutant};

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
        fence(Ordering::SeqCst);
    }
}

impl Epoch {
    /// Announces a nap of the only sleeper. Look at the ring again after this, before waiting.
    #[inline]
    pub fn doze(&self) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store((now | 1).wrapping_add(if now & 1 == 1 { 2 } else { 0 }), Ordering::Relaxed);
        // SYNC POINT C, sleeper's side.
        sleeper_fence();
    }

    /// Ends the nap of the only sleeper.
    #[inline]
    pub fn wake(&self) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(now & 1), Ordering::Relaxed);
    }

    /// Announces a nap where several threads may sleep on the same epoch: always a new odd value.
    #[inline]
    pub fn doze_shared(&self) {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let next = if now & 1 == 1 { now.wrapping_add(2) } else { now.wrapping_add(1) };
            let next = if mutant("doorbell_shared_epoch") { now | 1 } else { next };
            match self.0.compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(seen) => now = seen,
            }
        }
        // SYNC POINT C, sleeper's side.
        sleeper_fence();
    }

    /// Announces a nap of the only sleeper and says what to wait for: while `bell` has the value returned. `None` if `ready` after all.
    /// Either way [`wake`](Self::wake) comes afterwards.
    #[inline]
    #[must_use]
    pub fn nap(&self, bell: &Bell, ready: impl FnOnce() -> bool) -> Option<u32> {
        self.doze();
        look_again(bell, ready)
    }

    /// As [`nap`](Self::nap), where several threads may sleep on the same epoch.
    #[inline]
    #[must_use]
    pub fn nap_shared(&self, bell: &Bell, ready: impl FnOnce() -> bool) -> Option<u32> {
        self.doze_shared();
        look_again(bell, ready)
    }

    /// The value now, for [`wake_shared`](Self::wake_shared).
    #[inline]
    #[must_use]
    pub fn current(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends the nap of the last of several sleepers, unless one has come since `seen`.
    ///
    /// With another sleeper left this would silence its bell, so the caller counts them: add one (acquire) before
    /// [`doze_shared`](Self::doze_shared), afterwards read [`current`](Self::current), take one off (release), and call this if none is
    /// left. Leaving it out is always right and costs the ringer at most one needless ring for each nap.
    #[inline]
    pub fn wake_shared(&self, seen: u32) {
        if mutant("doorbell_wake_shared_blind") {
            self.0.store(seen.wrapping_add(seen & 1), Ordering::Relaxed);
        } else if seen & 1 == 1 {
            // Losing the race leaves the epoch odd: one ring too many, never one too few.
            let _ = self.0.compare_exchange(seen, seen.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn look_again(bell: &Bell, ready: impl FnOnce() -> bool) -> Option<u32> {
    if mutant("doorbell_look_first") {
        return if ready() { None } else { Some(bell.seen()) };
    }
    // In this order: a bell that moves after `seen` ends the wait, and one that moved before it shows its entry to `ready`.
    let seen = bell.seen();
    if ready() { None } else { Some(seen) }
}

impl Bell {
    /// The value to wait on. Read after [`Epoch::doze`] and before the second look at the ring.
    #[inline]
    #[must_use]
    pub fn seen(&self) -> u32 {
        let order = if mutant("doorbell_seen_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        // SYNC POINT C: pairs with the release in `ring`; who sees the bell moved sees the entry it was moved for.
        self.0.load(order)
    }

    /// Moves the bell; the caller then wakes all who wait on it.
    #[inline]
    pub fn ring(&self) {
        let order = if mutant("doorbell_ring_relaxed") { Ordering::Relaxed } else { Ordering::Release };
        // SYNC POINT C: pairs with the acquire in `seen`.
        self.0.fetch_add(1, order);
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
            fence(Ordering::SeqCst);
        }
    }

    /// Whether the other side sleeps and has not been rung for this nap; then the caller must ring.
    /// To be called after [`published`](Self::published).
    #[inline]
    #[must_use]
    pub fn due(&self, epoch: &Epoch) -> bool {
        let now = epoch.0.load(Ordering::Relaxed);
        if mutant("doorbell_rung_without_epoch") {
            return now & 1 == 1 && self.rung.swap(1, Ordering::Relaxed) == 0;
        }
        now & 1 == 1 && self.rung.swap(now, Ordering::Relaxed) != now
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
    fn a_second_sleeper_is_rung_for_too() {
        let (epoch, ringer) = (Epoch::default(), Ringer::default());
        epoch.doze_shared();
        assert!(ringer.due(&epoch));
        epoch.doze_shared();
        assert!(ringer.due(&epoch));
        let seen = epoch.current();
        epoch.doze_shared();
        epoch.wake_shared(seen);
        assert!(ringer.due(&epoch), "a sleeper that came meanwhile must keep the epoch odd");
        epoch.wake_shared(epoch.current());
        assert!(!ringer.due(&epoch));
    }
}
