//! A lane with one slot, as a whole: submitted, worked on, completed, freed and used again.
#![cfg(loom)]
#![expect(
    clippy::arc_with_non_send_sync,
    reason = "loom's cell is not Sync, and its threads run one at a time"
)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use microfaas_lane::Status;
use microfaas_lane::ring::{Entry, Line, Ring, WORDS};
use microfaas_lane::slots::{FreeSlots, Outcome, Record, Settled};
use microfaas_lane::state::{CallState, Start};
use microfaas_lane::sync::spin_loop;
use microfaas_model::model;

struct Lane {
    down: [Line; 1],
    up: [Line; 1],
    state: CallState,
    record: Record,
    free: FreeSlots,
    /// Stand for the buffers: loom notices an access that is not ordered behind the other side's.
    request: UnsafeCell<u32>,
    response: UnsafeCell<u32>,
}

fn lane() -> Arc<Lane> {
    let lane = Lane {
        down: [Line::empty(0)],
        up: [Line::empty(0)],
        state: CallState::default(),
        record: Record::default(),
        free: FreeSlots::default(),
        request: UnsafeCell::new(0),
        response: UnsafeCell::new(0),
    };
    lane.free.give_back(0);
    lane.state.prepare(lane.record.generation());
    Arc::new(lane)
}

fn entry(generation: u32) -> Entry {
    let mut entry = [0; WORDS];
    entry[1] = u64::from(generation);
    entry
}

fn next(ring: Ring<'_>, position: u64) -> u32 {
    loop {
        match ring.read(position).expect("both ends are honest") {
            Some(found) => break u32::try_from(found[1]).expect("a generation"),
            None => spin_loop(),
        }
    }
}

impl Lane {
    fn submit(&self, position: u64) -> u32 {
        assert_eq!(self.free.take(0, 1), Some(0));
        self.request.with_mut(|_| ());
        let generation = self.record.submit();
        Ring::new(&self.down).write(position, &entry(generation));
        generation
    }

    /// True where the call was run.
    fn work(&self, position: u64) -> bool {
        let generation = next(Ring::new(&self.down), position);
        let run = self.state.start(generation) == Start::Yours;
        if run {
            self.request.with(|_| ());
            self.response.with_mut(|_| ());
        }
        self.state.finish(generation);
        Ring::new(&self.up).write(position, &entry(generation));
        run
    }

    fn poll(&self, position: u64) -> u32 {
        let generation = next(Ring::new(&self.up), position);
        match self.record.settle(generation, &Outcome::bare(Status::Ok, false)) {
            Settled::Done => {}
            Settled::Abandoned => self.free.give_back(0),
            Settled::NotInFlight => panic!("the call was in flight"),
        }
        generation
    }

    fn finish(&self, generation: u32) {
        assert!(self.record.outcome(generation).is_some());
        self.response.with(|_| ());
        assert!(self.record.close(generation));
        self.free.give_back(0);
    }
}

#[test]
fn one_slot_serves_two_calls() {
    model(|| {
        let lane = lane();
        let worker = thread::spawn({
            let lane = Arc::clone(&lane);
            move || assert!(lane.work(0) && lane.work(1))
        });
        for position in 0..2 {
            let generation = lane.submit(position);
            assert_eq!(lane.poll(position), generation);
            lane.finish(generation);
        }
        worker.join().unwrap();
    });
}

/// The first call is taken back and abandoned while the worker may be starting it; the second is not touched by that.
#[test]
fn a_taken_back_call_frees_its_slot_for_the_next() {
    model(|| {
        let lane = lane();
        let first = lane.submit(0);
        let worker = thread::spawn({
            let lane = Arc::clone(&lane);
            move || (lane.work(0), lane.work(1))
        });
        let taken_back = lane.state.take_back(first);
        assert!(lane.record.abandon(first));
        assert_eq!(lane.poll(0), first);
        let second = lane.submit(1);
        assert!(!lane.state.take_back(first));
        assert_eq!(lane.poll(1), second);
        lane.finish(second);
        let (ran_first, ran_second) = worker.join().unwrap();
        assert!(ran_first != taken_back && ran_second);
    });
}
