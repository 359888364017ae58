//! How a worker sleeps: on the bells of all its lanes, until one of them moves.

use std::io;

use microfaas_lane::sync::Ordering;
use microfaas_preempt::timer;
use microfaas_sys::affinity;
use microfaas_sys::clock::monotonic_ns;
use microfaas_sys::futex::{self, Waiter, Woken};

use super::Worker;
use crate::control::Lane;

/// Longest sleep: an orphan notices within this time that its node is gone, if the death signal was not armed in time.
const SLEEP_NS_MAX: u64 = 1_000_000_000;

impl Worker {
    /// Whether every host that has said where it runs shares this core.
    pub(super) fn shares_core(&self) -> bool {
        self.lanes.iter().all(|lane| {
            let host = lane.end.host_words().host_cpu.0.load(Ordering::Relaxed);
            host != 0 && host == lane.end.worker_words().worker_cpu.0.load(Ordering::Relaxed)
        })
    }

    /// Sleeps until a lane's bell moves. True when the node is gone.
    pub(super) fn sleep(&mut self) -> io::Result<bool> {
        timer::sync();
        let start = monotonic_ns();
        let woken = self.wait_on_bells(start + SLEEP_NS_MAX);
        // The node may have moved this process.
        let core = affinity::current();
        for lane in self.lanes.iter() {
            lane.end.worker_words().worker_epoch.wake();
            lane.runs_on(core);
        }
        self.idle.slept(monotonic_ns() - start);
        if woken? == Woken::TimedOut { self.hear() } else { Ok(false) }
    }

    /// Reads the bells, announces the naps, looks once more, and waits: in this order (`microfaas_lane::doorbell`).
    fn wait_on_bells(&self, deadline_ns: u64) -> io::Result<Woken> {
        let Some(first) = self.lanes.iter().next() else {
            return Err(io::Error::other("a worker without lanes cannot serve"));
        };
        let mut waiters = [waiter(first); futex::WAIT_ANY_MAX];
        let mut count = 0;
        for (slot, lane) in waiters.iter_mut().zip(self.lanes.iter()) {
            *slot = waiter(lane);
            count += 1;
        }
        for lane in self.lanes.iter() {
            lane.end.worker_words().worker_epoch.doze();
        }
        if self.lanes.iter().any(|lane| lane.end.is_ready()) || self.control_waits() {
            return Ok(Woken::Changed);
        }
        let woken = futex::wait_any(&waiters[..count], deadline_ns);
        timer::slept();
        woken
    }
}

fn waiter(lane: &Lane) -> Waiter<'_> {
    let bell = &lane.end.host_words().worker_bell;
    Waiter { expected: bell.seen(), word: bell.word().as_std() }
}
