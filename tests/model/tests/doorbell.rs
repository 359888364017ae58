//! The doorbell: whoever sleeps while there is something for it is woken. A lost wake-up is a deadlock, which loom reports.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use microfaas_lane::doorbell::{Bell, Epoch, Ringer, Wish};
use microfaas_lane::ring::{Line, Ring};
use microfaas_lane::sync::{AtomicU64, Ordering};
use microfaas_model::{EventFd, Futex, entry, model};

/// One ring and the doorbell of its consumer.
struct Side {
    lines: [Line; 2],
    tail: AtomicU64,
    epoch: Epoch,
    bell: Bell,
    ringer: Ringer,
    futex: Futex,
    event: EventFd,
}

impl Side {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lines: [Line::empty(0), Line::empty(0)],
            tail: AtomicU64::new(0),
            epoch: Epoch::default(),
            bell: Bell::default(),
            ringer: Ringer::default(),
            futex: Futex::default(),
            event: EventFd::default(),
        })
    }

    fn ring(&self) -> Ring<'_> {
        Ring::new(&self.lines)
    }

    fn publish(&self, number: u32) {
        self.ring().write(self.tail.fetch_add(1, Ordering::Relaxed), &entry(number));
        Ringer::published();
    }

    /// What a producer does for each entry, where the consumer sleeps on a futex.
    fn push(&self, number: u32) {
        self.publish(number);
        if self.ringer.due(&self.epoch) {
            self.bell.ring();
            self.futex.wake_all();
        }
    }

    /// As `push`, where it sleeps on an eventfd.
    fn push_event(&self, number: u32) {
        self.publish(number);
        if self.ringer.due(&self.epoch) {
            self.event.write();
        }
    }

    /// What a host does for each submission: the worker may be asleep or busy.
    fn submit(&self, number: u32) {
        self.publish(number);
        match self.ringer.wish(&self.epoch) {
            None => {}
            Some(Wish::Ring) => {
                self.bell.ring();
                self.futex.wake_all();
            }
            Some(Wish::Interrupt) => self.event.write(),
        }
    }

    /// The only sleeper, busy until it is interrupted, for as long as the entry at `position` is not there. A signal, as the event here, waits for who is not
    /// busy yet.
    fn work_until(&self, position: u64) {
        while !self.ring().is_ready(position) {
            if self.epoch.engage(|| self.ring().is_ready(position)) {
                self.event.wait();
                self.event.clear();
            }
            self.epoch.wake();
        }
        assert!(matches!(self.ring().read(position), Ok(Some(_))));
    }

    /// The only sleeper, until the entry at `position` is there.
    fn sleep_until(&self, position: u64) {
        while !self.ring().is_ready(position) {
            if let Some(seen) = self.epoch.nap(&self.bell, || self.ring().is_ready(position)) {
                self.futex.wait(&self.bell, seen);
            }
            self.epoch.wake();
        }
        assert!(matches!(self.ring().read(position), Ok(Some(_))));
    }

    /// One of any number of event loops. Each looks for all of them when it wakes, and tells the others when it has found something.
    fn poll_until(&self, position: u64) {
        while !self.ring().is_ready(position) {
            self.epoch.doze_shared();
            if !self.ring().is_ready(position) {
                self.event.wait();
                self.event.clear();
            }
        }
        assert!(matches!(self.ring().read(position), Ok(Some(_))));
        self.event.write();
    }
}

/// Host to worker: one thread submits two calls, the worker naps between them.
#[test]
fn a_sleeping_worker_is_woken() {
    model(|| {
        let side = Side::new();
        let host = thread::spawn({
            let side = Arc::clone(&side);
            move || {
                side.push(1);
                side.push(2);
            }
        });
        side.sleep_until(0);
        side.sleep_until(1);
        host.join().unwrap();
    });
}

/// Host to worker: one thread submits two calls; a long slice ends for the first, or is not begun. Then the worker has another, or naps.
#[test]
fn a_busy_worker_is_interrupted() {
    for naps in [false, true] {
        model(move || {
            let side = Side::new();
            let host = thread::spawn({
                let side = Arc::clone(&side);
                move || {
                    side.submit(1);
                    side.submit(2);
                }
            });
            side.work_until(0);
            if naps {
                side.sleep_until(1)
            } else {
                side.work_until(1)
            }
            host.join().unwrap();
        });
    }
}

/// Host to worker: two threads submit one call each, and one of them interrupts for both.
#[test]
fn a_busy_worker_is_interrupted_by_two_hosts() {
    model(|| {
        let side = Side::new();
        let hosts = [1, 2].map(|number| {
            let side = Arc::clone(&side);
            thread::spawn(move || side.submit(number))
        });
        side.work_until(0);
        side.work_until(1);
        for host in hosts {
            host.join().unwrap();
        }
    });
}

/// Host to worker: two threads submit one call each and share what was rung for.
#[test]
fn a_sleeping_worker_is_woken_by_two_hosts() {
    model(|| {
        let side = Side::new();
        let hosts = [1, 2].map(|number| {
            let side = Arc::clone(&side);
            thread::spawn(move || side.push(number))
        });
        side.sleep_until(0);
        side.sleep_until(1);
        for host in hosts {
            host.join().unwrap();
        }
    });
}

/// Worker to host: the worker completes twice, the host naps between.
#[test]
fn a_sleeping_host_is_woken() {
    model(|| {
        let side = Side::new();
        let host = thread::spawn({
            let side = Arc::clone(&side);
            move || {
                side.sleep_until(0);
                side.sleep_until(1);
            }
        });
        side.push(1);
        side.push(2);
        host.join().unwrap();
    });
}

/// Worker to an event loop of the host: the eventfd's counter is the bell.
#[test]
fn a_sleeping_event_loop_is_woken() {
    model(|| {
        let side = Side::new();
        let host = thread::spawn({
            let side = Arc::clone(&side);
            move || {
                side.poll_until(0);
                side.poll_until(1);
            }
        });
        side.push_event(1);
        side.push_event(2);
        host.join().unwrap();
    });
}

/// The same where two of them sleep on it, and a ring may have woken the other one already.
#[test]
fn two_sleeping_event_loops_are_woken() {
    model(|| {
        let side = Side::new();
        let loops = [0, 1].map(|position| {
            let side = Arc::clone(&side);
            thread::spawn(move || side.poll_until(position))
        });
        side.push_event(1);
        side.push_event(2);
        for one in loops {
            one.join().unwrap();
        }
    });
}
