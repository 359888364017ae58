//! What is loaded in which worker, as others than the supervisor get to see it, and how often that has changed on the word of a call.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::shelf::Shelf;

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
}

#[derive(Debug, Default)]
struct Row {
    /// Of the shelf that it was read from.
    revision: u64,
    has: BTreeMap<u32, u64>,
    counts: Stocked,
}

impl Stock {
    pub(crate) fn new(workers: usize) -> Self {
        Self { rows: Mutex::new((0..workers).map(|_| Row::default()).collect()) }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        // No panic leaves a row half changed.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker has this now.
    pub(crate) fn show(&self, worker: usize, shelf: &Shelf) {
        if let Some(row) = self.rows().get_mut(worker)
            && row.revision != shelf.revision()
        {
            row.revision = shelf.revision();
            row.has.clone_from(shelf.has());
        }
    }

    fn count(&self, worker: usize, count: impl FnOnce(&mut Stocked)) {
        if let Some(row) = self.rows().get_mut(worker) {
            count(&mut row.counts);
        }
    }

    /// A module was loaded for calls that have waited for so long.
    pub(crate) fn warmed(&self, worker: usize, waited: Duration) {
        self.count(worker, |counts| {
            counts.cold_loads += 1;
            let waited_ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
            counts.cold_load_ns = counts.cold_load_ns.saturating_add(waited_ns);
        });
    }

    /// One that was wanted could not be loaded.
    pub(crate) fn failed(&self, worker: usize) {
        self.count(worker, |counts| counts.cold_load_failures += 1);
    }

    /// A module was unloaded to make room.
    pub(crate) fn evicted(&self, worker: usize) {
        self.count(worker, |counts| counts.evictions += 1);
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
