//! What attached hosts have decided of their calls without a worker: refused, taken back, lost. They count it where their node reads it, so that it is known also of a host that
//! was killed.
//!
//! Each host gets a region of its own (`microfaas_metrics`), as each worker does, and is believed as little: its numbers may be anything, and are nothing but added. That a call
//! has ended well only the worker says that ran it, and what it has used, too.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use microfaas_lane::Status;
use microfaas_metrics::Region;

use crate::metrics::{Counts, add, counted};

/// A host that is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostInfo {
    /// Its process, as the kernel noted it when it connected.
    pub pid: u32,
    /// Its user, likewise.
    pub uid: u32,
    /// Since when.
    pub since: Instant,
    /// Its calls that had their end without a worker, by status in the order of [`Status::ALL`]. It says so itself.
    pub decided: Counts,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledgers(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    /// Of those that are attached, by the number of the guest.
    open: BTreeMap<u64, Ledger>,
    /// Of all before them, by function number.
    past: BTreeMap<u32, Counts>,
}

#[derive(Debug)]
struct Ledger {
    region: Region,
    pid: u32,
    uid: u32,
    since: Instant,
}

impl Ledger {
    fn of(&self, number: u32) -> Option<Counts> {
        let mut counts = self.region.calls(number)?;
        counts[Status::Ok as usize] = 0;
        Some(counts)
    }
}

impl Ledgers {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host has attached. What it is to count in.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub(crate) fn open(&self, guest: u64, pid: u32, uid: u32) -> io::Result<OwnedFd> {
        let (region, fd) = Region::create()?;
        self.books().open.insert(guest, Ledger { region, pid, uid, since: Instant::now() });
        Ok(fd)
    }

    /// It has gone, and its numbers stay. Those of functions are below `numbers`.
    pub(crate) fn close(&self, guest: u64, numbers: usize) {
        let mut books = self.books();
        let Some(ledger) = books.open.remove(&guest) else { return };
        for number in counted(numbers) {
            if let Some(counts) = ledger.of(number) {
                add(books.past.entry(number).or_default(), &counts);
            }
        }
    }

    /// What hosts have decided of the calls of this function number.
    pub(crate) fn of(&self, number: u32) -> Counts {
        let books = self.books();
        let mut sum = books.past.get(&number).copied().unwrap_or_default();
        books.open.values().filter_map(|ledger| ledger.of(number)).for_each(|counts| add(&mut sum, &counts));
        sum
    }

    /// Who is attached, those that have been for longest first.
    pub(crate) fn hosts(&self, numbers: usize) -> Vec<HostInfo> {
        let info = |ledger: &Ledger| {
            let mut decided = Counts::default();
            counted(numbers)
                .filter_map(|number| ledger.of(number))
                .for_each(|counts| add(&mut decided, &counts));
            HostInfo { pid: ledger.pid, uid: ledger.uid, since: ledger.since, decided }
        };
        self.books().open.values().map(info).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use microfaas_metrics::Recorder;

    use super::*;

    #[test]
    fn what_a_host_has_counted_stays_when_it_goes() {
        let ledgers = Ledgers::default();
        let recorders =
            [1, 2].map(|guest| Recorder::map(ledgers.open(guest, 7, 8).unwrap().as_fd()).unwrap());
        for recorder in &recorders {
            recorder.count(3, Status::Overloaded);
            recorder.count(3, Status::Ok);
            recorder.count(u32::MAX, Status::WorkerLost);
        }
        let look = || {
            let count = |number, status| ledgers.of(number)[status as usize];
            (count(3, Status::Overloaded), count(3, Status::Ok), count(u32::MAX, Status::WorkerLost))
        };
        let hosts =
            || ledgers.hosts(4).iter().map(|host| host.decided.iter().sum::<u64>()).collect::<Vec<_>>();
        assert_eq!((look(), hosts()), ((2, 0, 2), vec![2, 2]));
        ledgers.close(1, 4);
        ledgers.close(1, 4);
        assert_eq!((look(), hosts()), ((2, 0, 2), vec![2]));
        recorders[1].count(3, Status::Overloaded);
        // Nobody reads it any more.
        recorders[0].count(3, Status::Overloaded);
        assert_eq!((look(), hosts()), ((3, 0, 2), vec![3]));
        ledgers.close(2, 4);
        assert_eq!((look(), hosts()), ((3, 0, 2), vec![]));
    }
}
