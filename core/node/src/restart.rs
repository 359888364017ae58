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
}

impl Restarts {
    pub(crate) fn new(free: u32) -> Self {
        Self { free: usize::try_from(free).unwrap_or(usize::MAX), recent: VecDeque::new(), pause: None }
    }

    /// Notes an end; returns how long to wait before the next start.
    pub(crate) fn ended(&mut self, now: Instant) -> Duration {
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|end| now.duration_since(*end) > WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.len() <= self.free && self.pause.is_none_or(|_| self.recent.len() == 1) {
            self.pause = None;
            return Duration::ZERO;
        }
        // The only one within the window begins anew.
        let before = self.pause.filter(|_| self.recent.len() > 1);
        let pause = before.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX));
        self.pause = Some(pause);
        pause
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
        // Slow failures, one each time the pause is over, do not reset the pause.
        assert_eq!(restarts.ended(start + PAUSE_MAX), PAUSE_MAX);
        let later = start + 2 * PAUSE_MAX + WINDOW;
        assert_eq!(restarts.ended(later), Duration::ZERO);
        assert_eq!(restarts.ended(later), Duration::ZERO);
    }

    #[test]
    fn where_none_is_made_good_at_once_a_rare_end_waits_for_the_least() {
        let mut restarts = Restarts::new(0);
        let start = Instant::now();
        assert_eq!(restarts.ended(start), PAUSE_MIN);
        assert_eq!(restarts.ended(start), 2 * PAUSE_MIN);
        assert_eq!(restarts.ended(start + 2 * WINDOW), PAUSE_MIN);
    }
}
