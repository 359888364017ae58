//! Loom models of the lane's ring, doorbell, call state and slots, on the lane's own types; one property each.
//!
//! Empty without `--cfg loom`. This file has what the kernel does for the lane: a futex and an eventfd. The models are in `tests/`,
//! what each must notice in `mutants.txt`.
#![cfg(loom)]

use loom::sync::{Condvar, Mutex};
use microfaas_lane::doorbell::Bell;
use microfaas_lane::ring::{Entry, WORDS};
use microfaas_lane::sync::Ordering;

/// Runs a model in every interleaving that `LOOM_MAX_PREEMPTIONS` allows (2 where it is not set).
pub fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.max_branches = 20_000;
    builder.check(run);
}

/// An entry whose every word says which one it is: half of one and half of another is noticed.
#[must_use]
pub fn entry(number: u32) -> Entry {
    core::array::from_fn(|i| u64::from(number) << 8 | i as u64)
}

const _: () = assert!(WORDS < 256);

/// `FUTEX_WAIT` and `FUTEX_WAKE` on a bell: comparing and going to sleep are one step, as in the kernel.
#[derive(Debug, Default)]
pub struct Futex {
    queue: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    /// Sleeps unless the bell has moved since `seen`. Without a time limit, so that loom sees a lost wake-up as a deadlock.
    ///
    /// # Panics
    /// Never in a model that ends.
    pub fn wait(&self, bell: &Bell, seen: u32) {
        let queue = self.queue.lock().expect("no model panics with the lock held");
        if bell.word().load(Ordering::Relaxed) == seen {
            drop(self.woken.wait(queue).expect("no model panics with the lock held"));
        }
    }

    /// Wakes all who sleep.
    ///
    /// # Panics
    /// Never in a model that ends.
    pub fn wake_all(&self) {
        let _queue = self.queue.lock().expect("no model panics with the lock held");
        self.woken.notify_all();
    }
}

/// An eventfd in a set that it is watched by on its edge: it is readable from the first write on until it is cleared. Or a signal, which waits for who is to take it.
#[derive(Debug, Default)]
pub struct EventFd {
    has_risen: Mutex<bool>,
    written: Condvar,
}

impl EventFd {
    /// Makes it readable.
    ///
    /// # Panics
    /// Never in a model that ends.
    pub fn write(&self) {
        *self.has_risen.lock().expect("no model panics with the lock held") = true;
        self.written.notify_all();
    }

    /// Waits until it is readable.
    ///
    /// # Panics
    /// Never in a model that ends.
    pub fn wait(&self) {
        let mut has_risen = self.has_risen.lock().expect("no model panics with the lock held");
        while !*has_risen {
            has_risen = self.written.wait(has_risen).expect("no model panics with the lock held");
        }
    }

    /// Makes it unreadable.
    ///
    /// # Panics
    /// Never in a model that ends.
    pub fn clear(&self) {
        *self.has_risen.lock().expect("no model panics with the lock held") = false;
    }
}
