//! What is loaded in which worker, as others than the supervisor get to see it, and how often that has changed on the word of a call.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::shelf::Shelf;
use crate::warm::Warm;

/// What one worker's place has of the modules. Counts include those of the workers that it had before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stocked {
    /// Loaded modules; one with functions that keep state and others counts twice.
    pub modules: u64,
    /// Bytes that these take, as the worker says.
    pub bytes: u64,
    /// Modules that were loaded since a call wanted them.
    pub cold_loads: u64,
    /// How long calls have waited for these, from when the node heard of it, all together in nanoseconds.
    pub cold_load_ns: u64,
    /// Modules that a call wanted and that could not be loaded.
    pub cold_load_failures: u64,
    /// Modules that were unloaded to make room.
    pub evictions: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stock {
    /// By worker.
    rows: Mutex<Vec<Row>>,
    /// By worker; for those who submit calls.
    warm: Box<[Warm]>,
}

#[derive(Debug, Default)]
struct Row {
    has: BTreeMap<u32, u64>,
    /// The functions of what it is just loading.
    loading: Vec<u32>,
    counts: Stocked,
}

impl Stock {
    pub(crate) fn new(workers: usize) -> Self {
        let warm = (0..workers).map(|_| Warm::default()).collect();
        Self { rows: Mutex::new((0..workers).map(|_| Row::default()).collect()), warm }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        // No panic leaves a row half changed.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, worker: usize, change: impl FnOnce(&mut Row, &Warm)) {
        if let Some((row, warm)) = self.rows().get_mut(worker).zip(self.warm.get(worker)) {
            change(row, warm);
        }
    }

    /// A worker is in this place that has this; `functions` are those of a part.
    pub(crate) fn enters<I: Iterator<Item = u32>>(
        &self,
        worker: usize,
        shelf: &Shelf,
        functions: impl FnMut(u32) -> I,
    ) {
        self.change(worker, |row, warm| {
            row.has.clone_from(shelf.has());
            shelf.has().keys().copied().flat_map(functions).for_each(|function| warm.add(function));
        });
    }

    /// The worker has gone from its place, and with it all that it had.
    pub(crate) fn leaves(&self, worker: usize) {
        self.change(worker, |row, warm| {
            row.has.clear();
            row.loading.clear();
            warm.clear();
        });
    }

    /// The worker is told to load what has these functions.
    pub(crate) fn loads(&self, worker: usize, functions: impl Iterator<Item = u32>) {
        self.change(worker, |row, _| row.loading = functions.collect());
    }

    /// The worker has loaded this, for calls that have waited for so long where they did. Who sees that it is loaded sees it counted.
    pub(crate) fn loaded(
        &self,
        worker: usize,
        (part, bytes): (u32, u64),
        waited: Option<Duration>,
        functions: impl Iterator<Item = u32>,
    ) {
        self.change(worker, |row, warm| {
            row.loading.clear();
            row.has.insert(part, bytes);
            if let Some(waited) = waited {
                row.counts.cold_loads += 1;
                let waited_ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
                row.counts.cold_load_ns = row.counts.cold_load_ns.saturating_add(waited_ns);
            }
            functions.for_each(|function| warm.add(function));
        });
    }

    /// The worker could not load what has these functions.
    pub(crate) fn cannot_load(&self, worker: usize, functions: impl Iterator<Item = u32>) {
        self.change(worker, |row, warm| {
            row.loading.clear();
            functions.for_each(|function| warm.remove(function));
        });
    }

    /// The worker has unloaded this: to make room, or since it was told to.
    pub(crate) fn unloaded(
        &self,
        worker: usize,
        part: u32,
        makes_room: bool,
        functions: impl Iterator<Item = u32>,
    ) {
        self.change(worker, |row, warm| {
            row.has.remove(&part);
            row.counts.evictions += u64::from(makes_room);
            functions.for_each(|function| warm.remove(function));
        });
    }

    /// A call of this function was sent to the worker, which will have to load it.
    #[inline]
    pub(crate) fn expects(&self, worker: usize, function: u32) {
        if let Some(warm) = self.warm.get(worker) {
            warm.add(function);
        }
    }

    /// Whether this function is loaded in the worker, or is about to be; see [`warm`](crate::warm).
    pub(crate) fn is_warm(&self, worker: usize, function: u32) -> bool {
        self.warm.get(worker).is_some_and(|warm| warm.has(function))
    }

    /// The functions of what the worker is just loading.
    pub(crate) fn loading(&self, worker: usize) -> Vec<u32> {
        self.rows().get(worker).map_or_else(Vec::new, |row| row.loading.clone())
    }

    /// One that was wanted could not be loaded.
    pub(crate) fn failed(&self, worker: usize) {
        self.change(worker, |row, _| row.counts.cold_load_failures += 1);
    }

    /// In how many of these workers all of the parts are loaded.
    pub(crate) fn loaded_in(&self, parts: &[u32], is_meant: impl Fn(usize) -> bool) -> usize {
        let rows = self.rows();
        let has_all = |row: &Row| parts.iter().all(|part| row.has.contains_key(part));
        rows.iter().enumerate().filter(|(worker, row)| is_meant(*worker) && has_all(row)).count()
    }

    pub(crate) fn of(&self, worker: usize) -> Stocked {
        let rows = self.rows();
        rows.get(worker).map_or_else(Stocked::default, |row| Stocked {
            modules: row.has.len() as u64,
            bytes: row.has.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)),
            ..row.counts
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The functions of part `n` are `2 * n` and the next one.
    fn of(part: u32) -> std::ops::Range<u32> {
        2 * part..2 * part + 2
    }

    fn is_warm(stock: &Stock, part: u32) -> bool {
        let warm: Vec<bool> = of(part).map(|function| stock.is_warm(1, function)).collect();
        assert!(warm[0] == warm[1] && !stock.is_warm(0, 2 * part), "all of it, in the one worker");
        warm[0]
    }

    #[test]
    fn what_workers_have_is_as_they_say() {
        let stock = Stock::new(2);
        let mut shelf = Shelf::default();
        shelf.loads(3);
        shelf.loaded(30);
        stock.enters(1, &shelf, of);
        assert!(is_warm(&stock, 3) && !is_warm(&stock, 4));
        assert_eq!((stock.of(1).modules, stock.of(1).bytes, stock.of(0).modules), (1, 30, 0));
        stock.loads(1, of(4));
        assert_eq!((stock.loading(1), stock.loading(0)), (vec![8, 9], vec![]));
        stock.loaded(1, (4, 5), Some(Duration::from_nanos(7)), of(4));
        assert!(is_warm(&stock, 4) && stock.loading(1).is_empty());
        assert_eq!((stock.of(1).modules, stock.of(1).bytes), (2, 35));
        assert_eq!((stock.of(1).cold_loads, stock.of(1).cold_load_ns), (1, 7));
        stock.unloaded(1, 3, true, of(3));
        assert!(!is_warm(&stock, 3) && stock.loaded_in(&[4], |_| true) == 1);
        assert_eq!((stock.of(1).evictions, stock.of(0).evictions), (1, 0));
        // Expected of the first call of each, and not so.
        of(5).for_each(|function| stock.expects(1, function));
        assert!(is_warm(&stock, 5) && stock.of(1).modules == 1);
        stock.loads(1, of(5));
        stock.cannot_load(1, of(5));
        assert!(!is_warm(&stock, 5) && stock.loading(1).is_empty());
        stock.loads(1, of(6));
        stock.leaves(1);
        assert!(!is_warm(&stock, 4) && stock.loading(1).is_empty() && stock.of(1).modules == 0);
        // A worker that there is not is nobody's.
        stock.expects(2, 0);
        stock.leaves(2);
        assert!(!stock.is_warm(2, 0) && stock.loading(2).is_empty());
    }
}
