//! Who may have how much of the node, and when to come back who gets nothing.
//!
//! - A function with a limit has at most as many calls on their way: [`Quotas`].
//! - The last eighth of a lane's slots of either class is kept for functions that have less than their share: [`Shares`]. So one that is flooded leaves room for the others,
//!   and one that is alone has seven eighths. Slots are handed out lowest first: the number of the slot that a call was given says how full the lane is,
//!   and nothing is counted before it is nearly full. Lanes with few slots, and nodes with one function, keep nothing.
//! - [`Pace`] is how fast calls come back: all, or those of a function with a limit, since calls of others say nothing of when it may have another. It is measured by those who
//!   are refused.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use microfaas_sys::clock::now_ns;

use crate::lane::Lane;
use crate::names::NAMES_MAX;

/// Slots of one class from which on some are kept.
const SLOTS_MIN: u32 = 16;
/// How old a count of a lane's calls may be, in nanoseconds.
const COUNT_NS: u64 = 50_000;
/// Time that a measurement of the pace spans at least, in nanoseconds.
const PACE_NS: u64 = 5_000_000;
/// Time in which nobody was refused and after which the node may have been idle, in nanoseconds: it says nothing of the pace.
const QUIET_NS: u64 = 1_000_000_000;
/// What a refusal says at least and at most, in nanoseconds.
const RETRY_NS: std::ops::RangeInclusive<u64> = 1_000_000..=10_000_000_000;

/// How many calls of functions with a limit are on their way, by the number of the name. Functions without one are not counted.
#[derive(Debug)]
pub(crate) struct Quotas {
    functions: Box<[Quota]>,
}

#[derive(Debug, Default)]
struct Quota {
    /// In the lower half those that are on their way, in the upper one those that have come back.
    calls: AtomicU64,
    /// As those who are refused have found it.
    pace: Pace,
}

/// The lower half.
const OUT: u64 = 0xffff_ffff;
/// A call that comes back: one more in the upper half, one less in the lower.
const CAME_BACK: u64 = (1 << 32) - 1;

impl Default for Quotas {
    fn default() -> Self {
        Self { functions: (0..NAMES_MAX).map(|_| Quota::default()).collect() }
    }
}

impl Quotas {
    /// Another call of a function is to be accepted. True where it may; then it is [released](Self::release) when it has left its worker.
    #[cold]
    pub(crate) fn admit(&self, name: u32, limit: u32) -> bool {
        let Some(Quota { calls, .. }) = self.functions.get(name as usize) else { return false };
        // Who is refused is never among those that others see.
        let more = |calls: u64| (calls & OUT < u64::from(limit)).then_some(calls + 1);
        calls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn release(&self, name: u32) {
        if let Some(Quota { calls, .. }) = self.functions.get(name as usize) {
            calls.fetch_add(CAME_BACK, Ordering::Relaxed);
        }
    }

    /// When a call of a function may be admitted that was not: by how fast its own calls come back.
    #[cold]
    pub(crate) fn retry_after(&self, name: u32) -> Duration {
        let Some(Quota { calls, pace }) = self.functions.get(name as usize) else {
            return Duration::from_nanos(*RETRY_NS.end());
        };
        let calls = calls.load(Ordering::Relaxed);
        pace.retry_after(calls >> 32, calls & OUT)
    }
}

/// How many calls of which function a lane has, as it was counted last: one class of slots.
#[derive(Debug, Default)]
struct Tally {
    at_ns: u64,
    /// Numbers of names, and calls.
    calls: Vec<(u32, u32)>,
}

/// What the functions of one lane have of its slots of one class.
#[derive(Debug)]
struct Class {
    tally: Mutex<Tally>,
    /// The name that had most when it was counted last: what it gets while somebody else is counting is nothing.
    most: AtomicU32,
}

impl Default for Class {
    fn default() -> Self {
        Self { tally: Mutex::default(), most: AtomicU32::new(u32::MAX) }
    }
}

impl Class {
    /// Whether a function may have a slot of those that are kept. `count` adds what each has now.
    fn may_have(&self, plenty: u32, name: u32, count: impl FnOnce(&mut Vec<(u32, u32)>)) -> bool {
        let mut tally = match self.tally.try_lock() {
            Ok(tally) => tally,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody counts. Of those that are not flooded, one more or less is no matter.
            Err(TryLockError::WouldBlock) => return self.most.load(Ordering::Relaxed) != name,
        };
        let now = now_ns();
        if now.saturating_sub(tally.at_ns) > COUNT_NS {
            tally.at_ns = now;
            tally.calls.clear();
            count(&mut tally.calls);
            let most = tally.calls.iter().max_by_key(|(_, calls)| *calls).map_or(u32::MAX, |(name, _)| *name);
            self.most.store(most, Ordering::Relaxed);
        }
        share(&mut tally.calls, plenty, name)
    }
}

/// What the functions of one lane have of its small and of its large slots.
#[derive(Debug, Default)]
pub(crate) struct Shares([Class; 2]);

impl Lane {
    /// Whether a slot that was just taken may go to the function of this name.
    ///
    /// # Cost
    /// Two comparisons while the lane has room.
    #[inline]
    pub(crate) fn may_have(&self, slot: u32, name: u32) -> bool {
        let geometry = self.host.geometry();
        let is_large = geometry.is_large(slot);
        let (first, count) = match is_large {
            false => (0, geometry.small_slots),
            true => (geometry.small_slots, geometry.large_slots),
        };
        let plenty = count - count / 8;
        count < SLOTS_MIN || slot - first < plenty || self.has_less_than_its_share(is_large, plenty, name)
    }

    #[cold]
    fn has_less_than_its_share(&self, is_large: bool, plenty: u32, name: u32) -> bool {
        self.shares.0[usize::from(is_large)].may_have(plenty, name, |calls| {
            for (ticket, _) in self.in_flight() {
                if self.host.geometry().is_large(ticket.slot) == is_large {
                    add(calls, self.note(ticket).history().name());
                }
            }
        })
    }
}

/// Whether a function may have another slot, which is counted then.
fn share(calls: &mut Vec<(u32, u32)>, plenty: u32, name: u32) -> bool {
    let mine = calls.iter().find(|(of, _)| *of == name).map_or(0, |(_, count)| *count);
    let functions = u32::try_from(calls.len()).unwrap_or(u32::MAX).saturating_add(u32::from(mine == 0));
    let may = mine < (plenty / functions).max(1);
    if may {
        add(calls, name);
    }
    may
}

fn add(calls: &mut Vec<(u32, u32)>, name: u32) {
    match calls.iter_mut().find(|(of, _)| *of == name) {
        Some((_, count)) => *count += 1,
        None => calls.push((name, 1)),
    }
}

/// How fast calls come back.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    at_ns: AtomicU64,
    done: AtomicU64,
    each_ns: AtomicU64,
}

impl Pace {
    /// How long half of `outstanding` calls take, one at least, where `done` have come back since the start.
    #[cold]
    pub(crate) fn retry_after(&self, done: u64, outstanding: u64) -> Duration {
        self.look(now_ns(), done);
        let wait = self.each_ns.load(Ordering::Relaxed).saturating_mul((outstanding / 2).max(1));
        Duration::from_nanos(wait.clamp(*RETRY_NS.start(), *RETRY_NS.end()))
    }

    /// Two that look at the same time get one of two good measurements.
    fn look(&self, now: u64, done: u64) {
        let (then, before) = (self.at_ns.load(Ordering::Relaxed), self.done.load(Ordering::Relaxed));
        let (passed, came) = (now.saturating_sub(then), done.saturating_sub(before));
        if passed < PACE_NS {
            return;
        }
        if then != 0 && done == before {
            // Calls take longer than that: the measurement goes on.
            self.each_ns.fetch_max(passed, Ordering::Relaxed);
            return;
        }
        self.at_ns.store(now, Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
        // Where the count has gone round, nothing is known until the next look.
        if then != 0 && passed <= QUIET_NS && came > 0 {
            self.each_ns.store(passed / came, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_function_leaves_room_for_another() {
        let mut calls = Vec::new();
        let flood = (0..128).filter(|_| share(&mut calls, 112, 1)).count();
        assert_eq!(flood, 112);
        let other = (0..128).filter(|_| share(&mut calls, 112, 2)).count();
        assert_eq!(other, 56, "half of what two share");
        assert!(!share(&mut calls, 112, 1));
        assert!(share(&mut calls, 112, 3), "a third one finds room, too");
    }

    #[test]
    fn while_somebody_counts_only_the_flooded_function_gets_nothing() {
        let class = Class::default();
        let flood = |calls: &mut Vec<(u32, u32)>| calls.extend([(1, 111), (2, 3)]);
        assert!(class.may_have(112, 3, flood));
        let _counting = class.tally.lock();
        assert!(!class.may_have(112, 1, flood));
        assert!(class.may_have(112, 2, flood) && class.may_have(112, 3, flood));
    }

    #[test]
    fn the_hint_follows_the_pace() {
        let pace = Pace::default();
        pace.look(1_000_000_000, 0);
        pace.look(1_010_000_000, 10);
        assert_eq!(pace.each_ns.load(Ordering::Relaxed), 1_000_000);
        assert!(pace.retry_after(10, 100) >= Duration::from_millis(1));
        pace.look(u64::MAX / 2, 10);
        assert_eq!(pace.retry_after(10, 100), Duration::from_secs(10));
    }

    /// What time has passed without refusals says nothing of how fast calls come back.
    #[test]
    fn a_quiet_hour_does_not_make_the_hint_long() {
        let pace = Pace::default();
        pace.look(1_000_000_000, 0);
        pace.look(1_010_000_000, 1000);
        let each_ns = pace.each_ns.load(Ordering::Relaxed);
        pace.look(3_600_000_000_000, 1100);
        assert_eq!(pace.each_ns.load(Ordering::Relaxed), each_ns);
        pace.look(3_600_010_000_000, 1200);
        assert_eq!(pace.each_ns.load(Ordering::Relaxed), 100_000);
    }

    /// As the half of a word that has the calls of a function.
    #[test]
    fn a_count_that_has_gone_round_is_measured_anew() {
        let pace = Pace::default();
        let last = u64::from(u32::MAX);
        let looks =
            [(1_000_000_000, last - 10), (1_010_000_000, last), (1_020_000_000, 9), (1_030_000_000, 1009)];
        let each = looks.map(|(now, done)| {
            pace.look(now, done);
            pace.each_ns.load(Ordering::Relaxed)
        });
        assert_eq!(each, [0, 1_000_000, 1_000_000, 10_000]);
    }

    /// Calls that take longer than a measurement spans.
    #[test]
    fn the_hint_is_as_long_as_slow_calls_take() {
        let pace = Pace::default();
        for tick in 0..=100 {
            pace.look(1_000_000_000 + tick * 6_000_000, tick / 50);
        }
        let each_ns = pace.each_ns.load(Ordering::Relaxed);
        assert!((290_000_000..=310_000_000).contains(&each_ns), "{each_ns}");
    }

    #[test]
    fn as_many_as_the_limit_says() {
        let quotas = Quotas::default();
        assert!(quotas.admit(7, 2) && quotas.admit(7, 2) && !quotas.admit(7, 2));
        assert!(quotas.admit(8, 1), "another function");
        quotas.release(7);
        assert!(quotas.admit(7, 2) && !quotas.admit(7, 2));
        assert_eq!(quotas.functions[7].calls.load(Ordering::Relaxed), 1 << 32 | 2);
    }
}
