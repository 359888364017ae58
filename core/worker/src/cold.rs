//! Cold modules: those that are there and not loaded. What is wanted of the node for them, and how much room the loaded ones may take.
//!
//! A call of a cold module waits, and the worker asks the node for the module, once. A module that cannot be loaded is left alone for a while: its calls are
//! refused at once, and the first one that comes after the pause has it tried again. So a broken `init` costs the worker a bounded share of its time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Modules that the node is asked for at a time: it sends one after the other, and the socket must not fill up.
const ASKED_MAX: usize = 8;
/// How long a module that could not be loaded is left alone, in nanoseconds; twice as long each time, up to 64 times.
const REST_NS: u64 = 1_000_000_000;
const DOUBLINGS_MAX: u32 = 6;

/// Which modules have been called that are cold.
#[derive(Debug, Default)]
pub struct Wants {
    /// Called, whether the node was asked or not.
    wanted: BTreeSet<u32>,
    /// Not asked for yet, in the order of their first calls.
    queue: VecDeque<u32>,
    /// Of the wanted ones, how many the node was asked for.
    asked: usize,
    resting: BTreeMap<u32, Rest>,
}

/// Of a module that could not be loaded.
#[derive(Debug)]
struct Rest {
    until_ns: u64,
    failures: u32,
}

impl Wants {
    /// A call waits for this module.
    pub fn add(&mut self, module: u32) {
        if self.wanted.insert(module) {
            self.queue.push_back(module);
        }
    }

    /// Whether there is something to ask the node for.
    #[inline]
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.queue.is_empty() && self.asked < ASKED_MAX
    }

    /// What the node is to be asked for now; counts as asked.
    pub fn take_next(&mut self) -> Option<u32> {
        if !self.is_due() {
            return None;
        }
        self.asked += 1;
        self.queue.pop_front()
    }

    /// The node could not be asked for what was [taken](Self::take_next).
    pub fn unsaid(&mut self, module: u32) {
        self.asked -= 1;
        self.queue.push_front(module);
    }

    /// Nothing waits for this module any more: it is loaded, or has gone.
    pub fn settle(&mut self, module: u32) {
        self.resting.remove(&module);
        self.drop_want(module);
    }

    fn drop_want(&mut self, module: u32) {
        if !self.wanted.remove(&module) {
            return;
        }
        let before = self.queue.len();
        self.queue.retain(|queued| *queued != module);
        if self.queue.len() == before {
            self.asked -= 1;
        }
    }

    /// The module could not be loaded.
    pub fn failed(&mut self, module: u32, now_ns: u64) {
        self.drop_want(module);
        let rest = self.resting.entry(module).or_insert(Rest { until_ns: 0, failures: 0 });
        let pause_ns = REST_NS << rest.failures.min(DOUBLINGS_MAX);
        rest.until_ns = now_ns.saturating_add(pause_ns);
        rest.failures = rest.failures.saturating_add(1);
    }

    /// Whether the module could not be loaded a moment ago.
    #[must_use]
    pub fn rests(&self, module: u32, now_ns: impl FnOnce() -> u64) -> bool {
        self.resting.get(&module).is_some_and(|rest| now_ns() < rest.until_ns)
    }
}

/// How much loaded modules may take, and what they do take.
#[derive(Debug, Default)]
pub struct Room {
    bytes_max: u64,
    count_max: usize,
    bytes: u64,
    count: usize,
}

impl Room {
    /// Of so many bytes and modules at most; 0 is no limit.
    #[must_use]
    pub fn new(bytes_max: u64, count_max: usize) -> Self {
        Self { bytes_max, count_max, ..Self::default() }
    }

    /// Most bytes.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// A module of this size is loaded.
    pub fn take(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.count += 1;
    }

    /// One of this size is gone.
    pub fn give(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.count = self.count.saturating_sub(1);
    }

    /// Whether these many modules more, of so many bytes together, stay within the limits.
    #[must_use]
    pub fn fits(&self, count: usize, bytes: u64) -> bool {
        let within = |max: u64, sum: u64| max == 0 || sum <= max;
        within(self.bytes_max, self.bytes.saturating_add(bytes))
            && within(self.count_max as u64, (self.count + count) as u64)
    }

    /// Whether a module of this size could ever be loaded.
    #[must_use]
    pub fn is_too_small_for(&self, bytes: u64) -> bool {
        self.bytes_max != 0 && bytes > self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_asked_for_once_and_a_few_at_a_time() {
        let mut wants = Wants::default();
        for module in (0..20).chain(0..20) {
            wants.add(module);
        }
        let first: Vec<u32> = std::iter::from_fn(|| wants.take_next()).collect();
        assert_eq!(first, (0..8).collect::<Vec<_>>());
        assert!(!wants.is_due());
        wants.settle(3);
        assert_eq!(wants.take_next(), Some(8));
        // Gone before it was asked for, and one that was not wanted.
        wants.settle(15);
        wants.settle(99);
        wants.settle(0);
        let module = wants.take_next().unwrap();
        wants.unsaid(module);
        assert_eq!(wants.take_next(), Some(module), "what could not be said is said first");
        for module in 0..20 {
            wants.settle(module);
        }
        assert_eq!((wants.asked, wants.take_next()), (0, None));
    }

    #[test]
    fn what_cannot_be_loaded_rests_longer_each_time() {
        let mut wants = Wants::default();
        let mut now = 5;
        for round in 0..10u32 {
            wants.add(7);
            assert_eq!(wants.take_next(), Some(7));
            wants.failed(7, now);
            let pause = REST_NS << round.min(6);
            assert!(wants.rests(7, || now + pause - 1));
            now += pause;
            assert!(!wants.rests(7, || now));
        }
        assert!(!wants.rests(8, || 0));
        wants.settle(7);
        assert!(!wants.rests(7, || 0), "one that was loaded is forgiven");
    }

    #[test]
    fn room_is_what_the_limits_leave() {
        let mut room = Room::new(100, 2);
        assert!(room.fits(1, 100) && !room.fits(1, 101));
        room.take(60);
        assert!(room.fits(1, 40) && !room.fits(1, 41));
        room.take(10);
        assert!(room.fits(0, 0) && !room.fits(1, 0));
        room.give(60);
        assert!(room.fits(1, 90));
        assert!(room.is_too_small_for(101) && !room.is_too_small_for(100));
        let free = Room::default();
        assert!(free.fits(1 << 20, u64::MAX) && !free.is_too_small_for(u64::MAX));
    }
}
