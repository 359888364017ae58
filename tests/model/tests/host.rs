//! What a host does around a lane's records: the steps of `core/node` (`lane.rs`, `notice.rs`, `park.rs`), which are not built for loom, with the lane's own types and fences.
#![cfg(loom)]

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;
use microfaas_lane::Status;
use microfaas_lane::doorbell::{Bell, Epoch, Ringer};
use microfaas_lane::ring::{Line, Ring};
use microfaas_lane::slots::{Outcome, Record, Settled};
use microfaas_lane::sync::{AtomicU32, Ordering, full_fence, spin_loop};
use microfaas_model::{Futex, entry, model};

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

/// One thread of a host sleeps on the lane's bell at a time, for all. The next one's nap is another than the last one's, and no thread ends the other's.
#[test]
fn who_leads_next_is_woken() {
    struct Lead {
        lines: [Line; 2],
        leader: AtomicU32,
        epoch: Epoch,
        bell: Bell,
        ringer: Ringer,
        futex: Futex,
    }
    impl Lead {
        fn wait(&self, position: u64, me: u32) {
            let ring = Ring::new(&self.lines);
            while self.leader.compare_exchange(0, me, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                spin_loop();
            }
            while !ring.is_ready(position) {
                if let Some(seen) = self.epoch.nap(&self.bell, || ring.is_ready(position)) {
                    self.futex.wait(&self.bell, seen);
                }
                self.epoch.wake();
            }
            self.leader.store(0, Ordering::Release);
        }
    }
    model(|| {
        let lead = Arc::new(Lead {
            lines: [Line::empty(0), Line::empty(0)],
            leader: AtomicU32::new(0),
            epoch: Epoch::default(),
            bell: Bell::default(),
            ringer: Ringer::default(),
            futex: Futex::default(),
        });
        let first = thread::spawn({
            let lead = Arc::clone(&lead);
            move || lead.wait(0, 1)
        });
        let worker = thread::spawn({
            let lead = Arc::clone(&lead);
            move || {
                for position in [0, 1] {
                    Ring::new(&lead.lines).write(position, &entry(1));
                    Ringer::published();
                    if lead.ringer.due(&lead.epoch) {
                        lead.bell.ring();
                        lead.futex.wake_all();
                    }
                }
            }
        });
        lead.wait(1, 2);
        first.join().unwrap();
        worker.join().unwrap();
    });
}
