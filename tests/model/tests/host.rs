//! What a host does around a lane's records: the steps of `core/node` (`lane.rs`, `notice.rs`), which are not built for loom, with the lane's own types and fences.
#![cfg(loom)]

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;
use microfaas_lane::Status;
use microfaas_lane::doorbell::{Bell, Ringer};
use microfaas_lane::slots::{Outcome, Record, Settled};
use microfaas_lane::sync::{AtomicU32, Ordering, full_fence};
use microfaas_model::{Futex, model};

#[derive(Default)]
struct Lane {
    record: Record,
    /// One thread at a time settles.
    reader: Mutex<()>,
    shut: Flag,
}

struct Flag(AtomicU32);

impl Default for Flag {
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl Flag {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }

    fn set(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

impl Lane {
    fn settle_all(&self) {
        let _reader = self.reader.lock().expect("no model panics with the lock held");
        let generation = self.record.generation();
        if self.record.in_flight(generation) {
            let settled = self.record.settle(generation, &Outcome::bare(Status::WorkerLost, true));
            assert_eq!(settled, Settled::Done);
        }
    }
}

/// A call is submitted while its lane is shut: one of the two sees to it. See `HostLane::settle_all`.
#[test]
fn a_call_that_comes_late_is_settled() {
    model(|| {
        let lane = Arc::new(Lane::default());
        let submitter = thread::spawn({
            let lane = Arc::clone(&lane);
            move || {
                let generation = lane.record.submit();
                Ringer::published();
                if lane.shut.is_set() {
                    lane.settle_all();
                }
                generation
            }
        });
        lane.shut.set();
        full_fence();
        lane.settle_all();
        let generation = submitter.join().unwrap();
        assert!(lane.record.outcome(generation).is_some(), "nobody has settled it");
    });
}

/// The owner of a call goes to sleep while another thread records its outcome: it sees it, or is woken.
#[test]
fn an_owner_that_sleeps_is_told() {
    #[derive(Default)]
    struct Note {
        record: Record,
        expects: Flag,
        word: Bell,
        futex: Futex,
    }
    model(|| {
        let note = Arc::new(Note::default());
        let generation = note.record.submit();
        let settler = thread::spawn({
            let note = Arc::clone(&note);
            move || {
                let settled = note.record.settle(generation, &Outcome::bare(Status::Ok, false));
                assert_eq!(settled, Settled::Done);
                full_fence();
                if note.expects.is_set() {
                    note.word.ring();
                    note.futex.wake_all();
                }
            }
        });
        loop {
            let seen = note.word.seen();
            note.expects.set();
            full_fence();
            if note.record.outcome(generation).is_some() {
                break;
            }
            note.futex.wait(&note.word, seen);
        }
        settler.join().unwrap();
    });
}
