//! Whether the whole node has stood still: a virtual machine that was paused, a container that was frozen. Clocks go on meanwhile, and everybody is late afterwards
//! through no fault of his.

use std::time::{Duration, Instant};

/// Longest time by which one that watches others may be late before it takes itself for the one that stood still, as a part of the time that the others have.
const SHARE: u32 = 2;
/// Least such time: so late is anybody at times.
const LATE_MIN: Duration = Duration::from_millis(100);

/// What the supervisor knows of its own time.
#[derive(Debug)]
pub(crate) struct Lapse {
    /// How long others may show nothing.
    stall: Duration,
    /// When it should be awake again, or have come round.
    due: Instant,
    /// Until then nobody is judged.
    grace: Option<Instant>,
}

impl Lapse {
    pub(crate) fn new(stall: Duration, now: Instant) -> Self {
        Self { stall, due: now, grace: None }
    }

    /// It is about to sleep for so long; for ever where `None`, when nobody is watched.
    pub(crate) fn sleeps(&mut self, now: Instant, timeout: Option<Duration>) {
        self.due =
            timeout.and_then(|timeout| now.checked_add(timeout)).unwrap_or(now + crate::pulse::FOR_EVER);
    }

    /// It is awake. True where it is so late that it has stood still: then all others may have, and have as long as ever from now on.
    pub(crate) fn wakes(&mut self, now: Instant) -> bool {
        let late = now.saturating_duration_since(self.due);
        self.due = now;
        if late < (self.stall / SHARE).max(LATE_MIN) {
            return false;
        }
        self.grace = Some(self.until(now));
        true
    }

    /// Until when those have time who should have answered by now, had nobody stood still.
    pub(crate) fn until(&self, now: Instant) -> Instant {
        now + self.stall.min(crate::pulse::FOR_EVER)
    }

    /// How long nobody is to be judged still, if anything has happened.
    pub(crate) fn grace(&self, now: Instant) -> Option<Duration> {
        self.grace.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(1);

    #[test]
    fn who_has_slept_for_far_too_long_judges_nobody_for_a_while() {
        let start = Instant::now();
        let mut lapse = Lapse::new(STALL, start);
        lapse.sleeps(start, Some(STALL));
        let awake = start + STALL + STALL / 4;
        assert!(!lapse.wakes(awake) && lapse.grace(awake).is_none(), "a little late, as anybody is");
        lapse.sleeps(awake, Some(STALL / 100));
        let thawed = awake + 100 * STALL;
        assert!(lapse.wakes(thawed));
        assert_eq!(lapse.grace(thawed), Some(STALL));
        lapse.sleeps(thawed, Some(STALL / 4));
        let next = thawed + STALL / 4;
        assert!(!lapse.wakes(next));
        assert_eq!(lapse.grace(next), Some(STALL - STALL / 4));
        assert_eq!(lapse.grace(thawed + STALL), None, "and then as ever");
    }

    #[test]
    fn it_may_stand_still_between_two_naps_too() {
        let start = Instant::now();
        let mut lapse = Lapse::new(STALL, start);
        lapse.sleeps(start, Some(Duration::ZERO));
        assert!(!lapse.wakes(start));
        // What it does now takes it ten seconds, though nothing does.
        let next = start + 10 * STALL;
        assert!(lapse.wakes(next) && lapse.grace(next).is_some());
    }

    #[test]
    fn who_has_no_patience_is_not_late_all_the_time() {
        let start = Instant::now();
        for stall in [Duration::ZERO, Duration::from_millis(10)] {
            let mut lapse = Lapse::new(stall, start);
            lapse.sleeps(start, Some(stall));
            assert!(!lapse.wakes(start + stall + LATE_MIN / 2), "{stall:?}");
            assert!(lapse.wakes(start + stall + LATE_MIN * 2), "{stall:?}");
        }
    }

    #[test]
    fn one_that_watches_nobody_may_sleep() {
        let start = Instant::now();
        let mut lapse = Lapse::new(STALL, start);
        lapse.sleeps(start, None);
        assert!(!lapse.wakes(start + 3600 * STALL));
        let mut patient = Lapse::new(Duration::MAX, start);
        patient.sleeps(start, Some(STALL));
        assert!(!patient.wakes(start + 1_000_000 * STALL), "who never ends anybody never forgives");
    }
}
