//! What one worker process has of the modules' parts, as the node knows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Loaded, with the bytes that each takes, as the worker says.
    has: BTreeMap<u32, u64>,
    /// Known to the worker, which wants them when they are called.
    cold: BTreeSet<u32>,
    /// Of both, what it is unloading.
    leaving: BTreeSet<u32>,
    /// Of the cold ones, those that calls wait for, and since when.
    wants: VecDeque<(u32, Instant)>,
    doing: Option<Doing>,
    /// What it did last was to load what calls waited for.
    served_want: bool,
    /// Bytes that are mapped though they were unloaded.
    stayed_bytes: u64,
    /// When it was last done with loading.
    loaded_at: Option<Instant>,
}

/// What a worker says of its modules, unasked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum News {
    /// Calls wait for a part that is cold.
    Wanted { part: u32 },
    /// A part that it was to unload is gone.
    Unloaded { part: u32, stayed_bytes: u64 },
    /// A part has made room for others, and is cold.
    Evicted { part: u32, stayed_bytes: u64 },
}

impl News {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wanted { .. } => "wanted",
            Self::Unloaded { .. } => "unloaded",
            Self::Evicted { .. } => "evicted",
        }
    }
}

/// What the worker was told and has not answered.
#[derive(Debug)]
enum Doing {
    /// To load this part, for which calls have waited since then.
    Load(u32, Option<Instant>),
    Shelve(Vec<u32>),
    Unload,
}

impl Shelf {
    /// Whether it has something to answer.
    pub(crate) fn is_asked(&self) -> bool {
        self.doing.is_some()
    }

    /// The worker is asked to load this.
    pub(crate) fn loads(&mut self, part: u32) {
        let wanted = self.wants.iter().position(|(want, _)| *want == part);
        let since = wanted.and_then(|at| self.wants.remove(at)).map(|(_, since)| since);
        self.served_want = since.is_some();
        self.doing = Some(Doing::Load(part, since));
    }

    /// What it is loading.
    pub(crate) fn loading(&self) -> Option<u32> {
        match self.doing {
            Some(Doing::Load(part, _)) => Some(part),
            _ => None,
        }
    }

    /// The worker is told that these are there, and cold.
    pub(crate) fn shelves(&mut self, parts: Vec<u32>) {
        self.served_want = false;
        self.doing = Some(Doing::Shelve(parts));
    }

    /// The worker is told to unload this.
    pub(crate) fn unloads(&mut self, part: u32) {
        self.leaving.insert(part);
        self.served_want = false;
        self.doing = Some(Doing::Unload);
    }

    /// The part is loaded. Returns how long calls have waited for it, where they have.
    pub(crate) fn loaded(&mut self, bytes: u64) -> Option<Duration> {
        self.loaded_at = Some(Instant::now());
        let Some(Doing::Load(part, since)) = self.doing.take() else { return None };
        self.cold.remove(&part);
        self.has.insert(part, bytes);
        since.map(|since| since.elapsed())
    }

    /// The worker has done, or could not do, what it was asked.
    pub(crate) fn answered(&mut self) {
        match self.doing.take() {
            Some(Doing::Shelve(parts)) => self.cold.extend(parts),
            Some(Doing::Load(..)) => self.loaded_at = Some(Instant::now()),
            _ => {}
        }
    }

    /// Whether calls may have waited since the worker was loading a module, which it may still have been for so long ago.
    pub(crate) fn excuses(&self, grace: Duration) -> bool {
        self.loading().is_some() || self.loaded_at.is_some_and(|time| time.elapsed() < grace)
    }

    /// Calls wait for this part. False where they cannot.
    pub(crate) fn wants(&mut self, part: u32) -> bool {
        let is_new = self.cold.contains(&part)
            && self.loading() != Some(part)
            && !self.wants.iter().any(|(want, _)| *want == part);
        if is_new {
            self.wants.push_back((part, Instant::now()));
        }
        is_new
    }

    /// Whether it is the turn of something else than what calls wait for, if there is anything: a worker whose calls want one module after the other would do nothing else.
    pub(crate) fn has_served_want(&self) -> bool {
        self.served_want
    }

    /// What calls have waited for the longest.
    pub(crate) fn first_want(&self) -> Option<u32> {
        self.wants.front().map(|(part, _)| *part)
    }

    /// Nothing can be done for whoever wants this.
    pub(crate) fn drop_want(&mut self, part: u32) {
        self.wants.retain(|(want, _)| *want != part);
    }

    /// The worker has made room by this one. False where it did not have it.
    pub(crate) fn evicted(&mut self, part: u32, stayed_bytes: u64) -> bool {
        self.stayed_bytes = self.stayed_bytes.saturating_add(stayed_bytes);
        self.has.remove(&part).is_some() && self.cold.insert(part)
    }

    /// The worker has unloaded a part. False where it was not to.
    pub(crate) fn unloaded(&mut self, part: u32, stayed_bytes: u64) -> bool {
        self.stayed_bytes = self.stayed_bytes.saturating_add(stayed_bytes);
        self.drop_want(part);
        let was_there = self.has.remove(&part).is_some() | self.cold.remove(&part);
        self.leaving.remove(&part) && was_there
    }

    /// Bytes that are mapped though they were unloaded.
    pub(crate) fn stayed_bytes(&self) -> u64 {
        self.stayed_bytes
    }

    /// Whether calls of it are answered by the worker: it is loaded, or would be.
    pub(crate) fn knows(&self, part: u32) -> bool {
        self.has.contains_key(&part) || self.cold.contains(&part)
    }

    /// Whether the worker has it, or is about to.
    pub(crate) fn holds(&self, part: u32) -> bool {
        self.knows(part)
            || match &self.doing {
                Some(Doing::Load(loading, _)) => *loading == part,
                Some(Doing::Shelve(parts)) => parts.contains(&part),
                _ => false,
            }
    }

    pub(crate) fn is_loaded(&self, part: u32) -> bool {
        self.has.contains_key(&part)
    }

    pub(crate) fn is_cold(&self, part: u32) -> bool {
        self.cold.contains(&part)
    }

    /// What it has and is not unloading.
    pub(crate) fn staying(&self) -> impl Iterator<Item = u32> + '_ {
        self.has.keys().chain(&self.cold).copied().filter(|part| !self.leaving.contains(part))
    }

    /// What is loaded.
    pub(crate) fn has(&self) -> &BTreeMap<u32, u64> {
        &self.has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> Shelf {
        let mut shelf = Shelf::default();
        shelf.loads(1);
        assert!(shelf.holds(1) && !shelf.knows(1) && shelf.loaded(10).is_none());
        shelf.shelves(vec![2, 3]);
        assert!(shelf.holds(3) && !shelf.knows(3) && shelf.is_asked());
        shelf.answered();
        assert!(shelf.knows(3) && !shelf.is_asked());
        shelf
    }

    #[test]
    fn only_what_is_cold_is_wanted_and_only_once() {
        let mut shelf = shelf();
        assert!(shelf.wants(2) && !shelf.wants(2) && !shelf.wants(1) && !shelf.wants(9));
        shelf.loads(2);
        assert!(!shelf.wants(2), "it is on its way");
        assert!(shelf.loaded(7).is_some() && shelf.is_loaded(2) && !shelf.is_cold(2));
        assert!(shelf.evicted(2, 0) && !shelf.evicted(2, 0) && shelf.wants(2));
        shelf.loads(2);
        shelf.answered();
        assert!(shelf.is_cold(2) && shelf.wants(2), "it could not be loaded");
    }

    #[test]
    fn what_calls_want_and_the_rest_take_turns() {
        let mut shelf = shelf();
        assert!(!shelf.has_served_want());
        assert!(shelf.wants(2) && shelf.wants(3));
        shelf.loads(2);
        assert!(shelf.has_served_want() && shelf.loaded(1).is_some() && shelf.has_served_want());
        shelf.loads(4);
        assert!(!shelf.has_served_want() && shelf.loaded(1).is_none());
        shelf.loads(3);
        shelf.answered();
        assert!(shelf.has_served_want(), "whether it could be loaded or not");
        shelf.unloads(1);
        assert!(!shelf.has_served_want());
    }

    #[test]
    fn a_part_goes_whether_it_is_cold_or_not() {
        let mut shelf = shelf();
        assert!(!shelf.unloaded(1, 0), "it was not to");
        let mut shelf = self::shelf();
        for part in [1, 2] {
            shelf.wants(part);
            shelf.unloads(part);
            shelf.answered();
            assert!(shelf.knows(part) && !shelf.staying().any(|of| of == part));
            assert!(shelf.unloaded(part, 5) && !shelf.holds(part));
        }
        assert_eq!((shelf.stayed_bytes(), shelf.first_want()), (10, None));
    }
}
