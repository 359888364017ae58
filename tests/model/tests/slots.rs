//! Slots and records: one owner at a time, who sees what the owner before wrote; one outcome for each call.
#![cfg(loom)]
#![expect(
    clippy::arc_with_non_send_sync,
    reason = "loom's cell is not Sync, and its threads run one at a time"
)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use microfaas_lane::Status;
use microfaas_lane::slots::{FreeSlots, Outcome, Record, Settled};
use microfaas_model::model;

/// A slot's buffer; loom notices two owners at once, or one who does not see the writes of the one before.
struct Buffer(UnsafeCell<u32>);

impl Buffer {
    fn touch(&self) {
        self.0.with_mut(|_| ());
    }
}

fn outcome() -> Outcome {
    Outcome { body_len: 7, meta_len: 9, overflow: true, cpu_ns: 5, ..Outcome::bare(Status::Panic, false) }
}

#[test]
fn a_slot_has_one_owner_at_a_time() {
    model(|| {
        let free = Arc::new(FreeSlots::default());
        let buffer = Arc::new(Buffer(UnsafeCell::new(0)));
        free.give_back(0);
        let once = {
            let (free, buffer) = (Arc::clone(&free), Arc::clone(&buffer));
            move || {
                if let Some(slot) = free.take(0, 1) {
                    buffer.touch();
                    free.give_back(slot);
                }
            }
        };
        let other = thread::spawn(once.clone());
        once();
        other.join().unwrap();
        assert_eq!(free.count(1), 1);
    });
}

#[test]
fn two_takers_get_two_slots() {
    model(|| {
        let free = Arc::new(FreeSlots::default());
        free.give_back(3);
        free.give_back(5);
        let other = thread::spawn({
            let free = Arc::clone(&free);
            move || free.take(0, 64).expect("one for each")
        });
        let here = free.take(0, 64).expect("one for each");
        let mut both = [here, other.join().unwrap()];
        both.sort_unstable();
        assert_eq!(both, [3, 5]);
        assert_eq!(free.take(0, 64), None);
    });
}

#[test]
fn an_outcome_is_seen_whole() {
    model(|| {
        let record = Arc::new(Record::default());
        let generation = record.submit();
        let reader = thread::spawn({
            let record = Arc::clone(&record);
            move || assert_eq!(record.settle(generation, &outcome()), Settled::Done)
        });
        if let Some(found) = record.outcome(generation) {
            assert_eq!(found, outcome());
        }
        reader.join().unwrap();
        assert_eq!(record.outcome(generation), Some(outcome()));
    });
}

/// A reader that moves a call copies its request out of the slot. No ring orders that: it finds the call by its record.
#[test]
fn a_request_is_whole_for_who_moves_it() {
    model(|| {
        let record = Arc::new(Record::default());
        let buffer = Arc::new(Buffer(UnsafeCell::new(0)));
        let generation = record.generation();
        let owner = thread::spawn({
            let (record, buffer) = (Arc::clone(&record), Arc::clone(&buffer));
            move || {
                buffer.touch();
                record.asks(5, 7);
                record.submit()
            }
        });
        if record.is_wanted(generation) {
            buffer.touch();
            assert_eq!(record.asked(), (5, 7));
        } else if record.in_flight(generation) {
            buffer.touch();
        }
        assert_eq!(owner.join().unwrap(), generation);
    });
}

/// The owner loses interest while the completion arrives: exactly one of the two frees the slot.
#[test]
fn an_abandoned_slot_is_freed_once() {
    model(|| {
        let record = Arc::new(Record::default());
        let buffer = Arc::new(Buffer(UnsafeCell::new(0)));
        let free = Arc::new(FreeSlots::default());
        let generation = record.submit();
        let reader = thread::spawn({
            let (record, free, buffer) = (Arc::clone(&record), Arc::clone(&free), Arc::clone(&buffer));
            move || match record.settle(generation, &outcome()) {
                Settled::Done => false,
                Settled::Abandoned => {
                    buffer.touch();
                    free.give_back(0);
                    true
                }
                Settled::NotInFlight => panic!("the call was in flight"),
            }
        });
        // The slot is the owner's until then.
        buffer.touch();
        let owner_frees = !record.abandon(generation);
        if owner_frees {
            assert_eq!(record.outcome(generation), Some(outcome()), "not in flight, so it has an outcome");
            assert!(record.close(generation));
            buffer.touch();
            free.give_back(0);
        }
        let reader_frees = reader.join().unwrap();
        assert!(owner_frees != reader_frees, "owner: {owner_frees}, reader: {reader_frees}");
        assert_eq!(free.take(0, 1), Some(0));
        buffer.touch();
        assert_eq!(record.generation(), generation + 1);
        assert!(!record.in_flight(generation));
    });
}

/// A ticket is a number that a C program may use twice: from two threads, the slot is still freed once.
#[test]
fn a_ticket_released_twice_frees_once() {
    model(|| {
        let record = Arc::new(Record::default());
        let generation = record.submit();
        assert_eq!(record.settle(generation, &outcome()), Settled::Done);
        let other = thread::spawn({
            let record = Arc::clone(&record);
            move || record.close(generation)
        });
        let here = record.close(generation);
        let there = other.join().unwrap();
        assert!(here != there, "freed by both or by none");
    });
}

/// As above, where the first to release has the slot in use again at once.
#[test]
fn a_late_release_misses_the_next_call() {
    model(|| {
        let record = Arc::new(Record::default());
        let generation = record.submit();
        assert_eq!(record.settle(generation, &outcome()), Settled::Done);
        let late = thread::spawn({
            let record = Arc::clone(&record);
            move || record.close(generation)
        });
        if record.close(generation) {
            let next = record.submit();
            assert!(!late.join().unwrap());
            assert!(record.in_flight(next), "a late release has ended the next call");
        } else {
            assert!(late.join().unwrap());
        }
    });
}
