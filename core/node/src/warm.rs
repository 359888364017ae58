//! Which worker a call goes to whose function is loaded when it is called.
//!
//! A worker where the module is *warm* is preferred, as long as it does not have many more calls in its hands than another: a cold one counts as if it had [`COLD_CALLS`]
//! more. So a function that is called now and then is loaded in one worker, and one that is called a lot is loaded in as many as it keeps busy.
//!
//! **Why so few.** A load is paid once for many calls, by the worker too, which runs none meanwhile. But a call that is kept with others has less of the core for as long as
//! it runs, and calls that have started never change their worker. So two calls may be kept together for the sake of a load that is saved, and not ten. What has waited for a
//! millisecond goes to a worker that has nothing to do in any case (`moves`), unless its module is just being loaded where it is: that is sooner done than begun again.
//!
//! **What is warm** is what calls were sent to, or what the node knows to be loaded. Who submits a call says so before the worker has loaded anything: calls that come
//! together wait for one load. In a node, the supervisor corrects that by what workers say: loaded for whomever, unloaded, ended. A host that is attached knows of its own calls alone and
//! goes by them until the lane to the worker ends: for news of each load and each eviction it would have to be woken more often than it would be helped. All of it is advice;
//! a call that finds its module cold has it loaded wherever it is.
//!
//! Functions that are loaded at the start know nothing of this: that they are is a bit in the word that has their number (`names`).

use std::sync::atomic::{AtomicU64, Ordering};

use microfaas_metrics::FUNCTIONS;

use crate::names::Entry;
use crate::node::Shared;

/// Calls that a worker where the module is warm may have more in its hands than one where it is cold.
const COLD_CALLS: u32 = 2;

/// Function numbers whose modules are warm in one worker, or are about to be. Numbers beyond [`FUNCTIONS`] never are.
#[derive(Debug)]
pub(crate) struct Warm(Box<[AtomicU64]>);

impl Default for Warm {
    fn default() -> Self {
        Self((0..FUNCTIONS.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Warm {
    fn word(&self, function: u32) -> Option<(&AtomicU64, u64)> {
        Some((self.0.get(function as usize / 64)?, 1 << (function % 64)))
    }

    /// # Cost
    /// One load.
    pub(crate) fn has(&self, function: u32) -> bool {
        self.word(function).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// # Cost
    /// One load where it is known already.
    pub(crate) fn add(&self, function: u32) {
        if let Some((word, bit)) = self.word(function)
            && word.load(Ordering::Relaxed) & bit == 0
        {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove(&self, function: u32) {
        if let Some((word, bit)) = self.word(function) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

impl Shared {
    /// The worker to send a call of this function to; `None` where there is none.
    #[inline]
    pub(crate) fn best_for(&self, function: Entry) -> Option<usize> {
        if function.is_lazy { self.warmest(function.function) } else { self.least_busy() }
    }

    /// See the module. Otherwise as [`least_busy`](Self::least_busy).
    fn warmest(&self, function: u32) -> Option<usize> {
        let seats = self.seats.iter().enumerate();
        let costs = seats.filter_map(|(i, seat)| {
            let calls = seat.load.get()?;
            let is_cold = !self.stock.is_warm(i, function);
            let cost = calls.saturating_add(if is_cold { COLD_CALLS } else { 0 });
            Some((seat.load.is_leaving(), cost, is_cold, i))
        });
        costs.min().map(|(.., i)| i)
    }

    /// A call of this function goes to this worker.
    #[inline]
    pub(crate) fn sends(&self, worker: usize, function: Entry) {
        if function.is_lazy {
            self.stock.expects(worker, function.function);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moves::tests::{lane, node, submit_due};

    const LAZY: Entry = Entry { function: 7, is_lazy: true, ..Entry::NONE };
    const EAGER: Entry = Entry { is_lazy: false, ..LAZY };

    #[test]
    fn numbers_come_and_go() {
        let warm = Warm::default();
        let last = u32::try_from(FUNCTIONS).unwrap() - 1;
        for number in [0, 63, 64, last] {
            assert!(!warm.has(number));
            warm.add(number);
            warm.add(number);
            assert!(warm.has(number) && !warm.has(number ^ 1));
            warm.remove(number);
            assert!(!warm.has(number));
            warm.add(number);
        }
        warm.clear();
        assert!([0, 63, 64, last].into_iter().all(|number| !warm.has(number)));
        for beyond in [last + 1, u32::MAX] {
            warm.add(beyond);
            warm.remove(beyond);
            assert!(!warm.has(beyond), "it is not looked after");
        }
    }

    #[test]
    fn a_warm_worker_is_preferred_until_it_has_far_more_to_do() {
        let (shared, lanes) = node(3);
        for (seat, (lane, _)) in shared.seats.iter().zip(&lanes) {
            seat.open(std::sync::Arc::clone(lane));
        }
        assert_eq!(shared.best_for(LAZY), Some(0), "cold everywhere: the first of the least busy");
        shared.sends(1, LAZY);
        shared.sends(2, EAGER);
        for calls in 0..=COLD_CALLS {
            assert_eq!((shared.best_for(LAZY), shared.best_for(EAGER)), (Some(1), Some(0)), "{calls}");
            submit_due(&lanes[1].0, u64::MAX);
        }
        assert_eq!(shared.best_for(LAZY), Some(0), "let another one load it");
        shared.sends(0, LAZY);
        submit_due(&lanes[0].0, u64::MAX);
        submit_due(&lanes[0].0, u64::MAX);
        assert_eq!((shared.best_for(LAZY), shared.best_for(EAGER)), (Some(0), Some(2)), "two are warm");
        shared.seats[0].load.leave();
        assert_eq!(shared.best_for(LAZY), Some(2), "what leaves begins nothing more, warm or not");
        shared.stock.leaves(1);
        shared.stock.leaves(0);
        shared.seats[0].open(lane(&shared, 0).0);
        submit_due(&lanes[2].0, u64::MAX);
        shared.stock.expects(2, LAZY.function);
        assert_eq!(shared.best_for(LAZY), Some(2));
        shared.seats[2].load.close();
        assert_eq!(shared.best_for(LAZY), Some(0), "where it was warm is forgotten with the worker");
    }
}
