//! How often a worker may be replaced, as an OTP supervisor limits it: at once while it happens rarely, then with growing pauses.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The recent ends of one worker.
#[derive(Debug)]
pub(crate) struct Restarts {
    /// Replacements at once within [`WINDOW`].
    free: usize,
    recent: VecDeque<Instant>,
    pause: Option<Duration>,
    /// Since when the one that is there now serves.
    serves: Option<Instant>,
}

impl Restarts {
    pub(crate) fn new(free: u32) -> Self {
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        Self { free, recent: VecDeque::new(), pause: None, serves: None }
    }

    /// One has come up.
    pub(crate) fn serves(&mut self, now: Instant) {
        self.serves = Some(now);
    }

    /// Notes an end; returns how long to wait before the next start. One that has served for long enough forgives those before it.
    pub(crate) fn ended(&mut self, now: Instant) -> Duration {
        if self.has_lived(now) {
            self.pause = None;
        }
        self.serves = None;
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|end| now.duration_since(*end) > WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.len() <= self.free && self.pause.is_none() {
            return Duration::ZERO;
        }
        let pause = self.pause.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX));
        self.pause = Some(pause);
        pause
    }

    /// As [`ended`](Self::ended), of one that was told to: that says nothing against it, where it has served for long enough.
    pub(crate) fn retired(&mut self, now: Instant) -> Duration {
        if self.has_lived(now) {
            (self.pause, self.serves) = (None, None);
            return Duration::ZERO;
        }
        self.ended(now)
    }

    fn has_lived(&self, now: Instant) -> bool {
        self.serves.is_some_and(|since| now.duration_since(since) >= WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_ends_cost_nothing_and_frequent_ones_more_and_more() {
        let mut restarts = Restarts::new(5);
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(restarts.ended(start), Duration::ZERO);
        }
        let pauses: Vec<_> = (0..9).map(|_| restarts.ended(start).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        // Slow failures do not reset the pause: one each time the pause is over, and as long as it took to find out.
        let mut now = start;
        for _ in 0..5 {
            now += PAUSE_MAX + WINDOW / 2;
            assert_eq!(restarts.ended(now), PAUSE_MAX);
            now += PAUSE_MAX;
            restarts.serves(now);
            now += WINDOW / 2;
            assert_eq!(restarts.ended(now), PAUSE_MAX);
        }
        // A life does.
        restarts.serves(now);
        let later = now + WINDOW;
        assert_eq!(restarts.ended(later), Duration::ZERO);
        assert_eq!(restarts.ended(later), Duration::ZERO);
    }

    #[test]
    fn whoever_has_served_for_long_and_is_told_to_end_has_done_nothing_wrong() {
        let mut restarts = Restarts::new(1);
        let mut now = Instant::now();
        for _ in 0..10 {
            restarts.serves(now);
            now += WINDOW;
            assert_eq!(restarts.retired(now), Duration::ZERO);
        }
        assert_eq!((restarts.ended(now), restarts.ended(now)), (Duration::ZERO, PAUSE_MIN));
        // One that is of no use again and again is no better than one that dies.
        restarts.serves(now);
        assert_eq!(restarts.retired(now), 2 * PAUSE_MIN);
    }

    #[test]
    fn where_none_is_made_good_at_once_a_rare_end_waits_for_the_least() {
        let mut restarts = Restarts::new(0);
        let start = Instant::now();
        assert_eq!(restarts.ended(start), PAUSE_MIN);
        assert_eq!(restarts.ended(start), 2 * PAUSE_MIN);
        restarts.serves(start);
        assert_eq!(restarts.ended(start + WINDOW), PAUSE_MIN);
    }
}
