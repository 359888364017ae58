//! The table of names: from a function's number, which never changes, to what a call of it needs now.
//!
//! A name keeps its number for the life of the node; what it stands for changes when modules are deployed. Each call looks here, so looking costs a few
//! loads and never waits. There are two tables: readers use the one that the generation says, a writer fills the other one and then moves the
//! generation. So everything that one deployment changes is there at once, for all names. A reader that was held up for a whole generation finds that
//! the generation has moved, and looks again.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use crossbeam_utils::CachePadded;

/// Most names that a node may ever have had.
pub(crate) const NAMES_MAX: usize = 16_384;

/// What a call of a name needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The number by which workers know the current version.
    pub(crate) function: u32,
    /// How long a caller waits who sets no deadline; `u64::MAX` for no limit.
    pub(crate) deadline_ns: u64,
    /// Most of its calls that a host may have on their way; 0 for no limit.
    pub(crate) concurrency: u32,
    /// Workers load it when it is called.
    pub(crate) is_lazy: bool,
    /// Running it twice does no harm.
    pub(crate) is_idempotent: bool,
}

impl Entry {
    /// No function.
    pub(crate) const NONE: Self =
        Self { function: u32::MAX, deadline_ns: 0, concurrency: 0, is_lazy: false, is_idempotent: false };

    fn word(self) -> u32 {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        (self.function + 1) | flag(self.is_lazy, LAZY) | flag(self.is_idempotent, IDEMPOTENT)
    }
}

/// Workers load the function when it is called. Numbers are below: there are a few for each name.
const LAZY: u32 = 1 << 31;
/// Running the function twice does no harm.
const IDEMPOTENT: u32 = 1 << 30;

#[derive(Debug, Default)]
struct Row {
    /// The function's number plus one, [`LAZY`] and [`IDEMPOTENT`]; 0 for none.
    function: AtomicU32,
    concurrency: AtomicU32,
    deadline_ns: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Names {
    /// Its last bit says which table is in use.
    generation: CachePadded<AtomicU64>,
    tables: [Box<[Row]>; 2],
    writer: Mutex<()>,
}

impl Default for Names {
    fn default() -> Self {
        let table = || (0..NAMES_MAX).map(|_| Row::default()).collect();
        Self { generation: CachePadded::default(), tables: [table(), table()], writer: Mutex::new(()) }
    }
}

impl Names {
    /// What a name stands for; `None` where there is no such function now.
    ///
    /// # Cost
    /// Five loads, two of them of one line that all readers share.
    #[inline]
    pub(crate) fn resolve(&self, name: u32) -> Option<Entry> {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            let row = self.tables[(generation & 1) as usize].get(name as usize)?;
            let function = row.function.load(Ordering::Relaxed);
            let deadline_ns = row.deadline_ns.load(Ordering::Relaxed);
            let concurrency = row.concurrency.load(Ordering::Relaxed);
            // Pairs with the fence in `publish`: who has read a word of a later generation finds the generation moved.
            fence(Ordering::Acquire);
            if self.generation.load(Ordering::Relaxed) == generation {
                let (is_lazy, is_idempotent) = (function & LAZY != 0, function & IDEMPOTENT != 0);
                let number = (function & !(LAZY | IDEMPOTENT)).checked_sub(1);
                let entry = |function| Entry { function, deadline_ns, concurrency, is_lazy, is_idempotent };
                return number.map(entry);
            }
        }
    }

    /// Makes names stand for these from now on: `entries[n]` for name `n`, and nothing for names beyond them.
    pub(crate) fn publish(&self, entries: &[Option<Entry>]) {
        // A writer that has panicked has not moved the generation.
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.generation.load(Ordering::Relaxed) + 1;
        // The table that is filled was in use before the generation that is in use now: readers of it must see that one.
        fence(Ordering::Release);
        let entries = entries.iter().copied().chain(std::iter::repeat(None));
        for (row, entry) in self.tables[(next & 1) as usize].iter().zip(entries) {
            row.function.store(entry.map_or(0, Entry::word), Ordering::Relaxed);
            row.concurrency.store(entry.map_or(0, |entry| entry.concurrency), Ordering::Relaxed);
            row.deadline_ns.store(entry.map_or(0, |entry| entry.deadline_ns), Ordering::Relaxed);
        }
        self.generation.store(next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn entry(n: u32) -> Option<Entry> {
        let (is_lazy, is_idempotent) = (n % 2 == 1, n % 3 == 1);
        Some(Entry { function: n, deadline_ns: u64::from(n) * 3, concurrency: n, is_lazy, is_idempotent })
    }

    #[test]
    fn names_come_and_go() {
        let names = Names::default();
        assert_eq!(names.resolve(0), None);
        names.publish(&[entry(7), entry(0)]);
        assert_eq!((names.resolve(0), names.resolve(1), names.resolve(2)), (entry(7), entry(0), None));
        names.publish(&[None, entry(8)]);
        assert_eq!((names.resolve(0), names.resolve(1)), (None, entry(8)));
        names.publish(&[]);
        assert_eq!(names.resolve(1), None);
        assert_eq!(names.resolve(u32::MAX), None);
    }

    #[test]
    fn readers_see_whole_rows_and_never_go_back() {
        const LAST: u32 = 20_000;
        let (names, done) = (Names::default(), AtomicBool::new(false));
        names.publish(&[entry(1), entry(1)]);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        for name in [0, 1] {
                            let seen = names.resolve(name).unwrap();
                            assert_eq!(seen.deadline_ns, u64::from(seen.function) * 3, "a torn row");
                            assert!(seen.function >= last, "{} after {last}", seen.function);
                            last = seen.function;
                        }
                    }
                });
            }
            for n in 2..=if cfg!(miri) { 20 } else { LAST / 100 } {
                names.publish(&[entry(n), entry(n)]);
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
