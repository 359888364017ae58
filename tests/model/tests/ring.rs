//! The ring: an entry is never half, never seen twice, never out of order.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use microfaas_lane::ring::{Entry, Line, Ring};
use microfaas_lane::slots::FreeSlots;
use microfaas_lane::sync::{AtomicU64, Ordering, spin_loop};
use microfaas_model::{entry, model};

fn lines<const N: usize>() -> Arc<[Line; N]> {
    Arc::new(core::array::from_fn(|_| Line::empty(0)))
}

/// Word 0 keeps its upper half for the tag.
fn expected(number: u32) -> Entry {
    let mut entry = entry(number);
    entry[0] &= 0xffff_ffff;
    entry
}

fn next(ring: Ring<'_>, position: u64) -> Option<Entry> {
    ring.read(position).expect("an honest producer leaves no strange tag")
}

#[test]
fn an_entry_is_never_half() {
    model(|| {
        let shared = lines::<2>();
        let producer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                Ring::new(&*shared).write(0, &entry(10));
                Ring::new(&*shared).write(1, &entry(11));
            }
        });
        let ring = Ring::new(&*shared);
        let mut head = 0;
        for _ in 0..3 {
            if let Some(found) = next(ring, head) {
                assert_eq!(found, expected(10 + u32::try_from(head).unwrap()));
                head += 1;
                if head == 2 {
                    break;
                }
            }
        }
        producer.join().unwrap();
        for position in head..2 {
            assert_eq!(next(ring, position), Some(expected(10 + u32::try_from(position).unwrap())));
        }
        assert_eq!(next(ring, 2), None, "an entry was seen a second time");
    });
}

#[test]
fn what_is_ready_can_be_read() {
    model(|| {
        let shared = lines::<1>();
        let producer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || Ring::new(&*shared).write(0, &entry(1))
        });
        let ring = Ring::new(&*shared);
        if ring.is_ready(0) {
            assert_eq!(next(ring, 0), Some(expected(1)));
        }
        producer.join().unwrap();
        assert!(ring.is_ready(0));
    });
}

/// One slot, rings of one line: every line is used again in the next lap, which is safe because the other ring says when.
#[test]
fn lines_are_used_again_in_the_next_lap() {
    model(|| {
        let (down, up) = (lines::<1>(), lines::<1>());
        let worker = thread::spawn({
            let (down, up) = (Arc::clone(&down), Arc::clone(&up));
            move || {
                for position in 0..2 {
                    let found = loop {
                        match next(Ring::new(&*down), position) {
                            Some(found) => break found,
                            None => spin_loop(),
                        }
                    };
                    Ring::new(&*up).write(position, &found);
                }
            }
        });
        for position in 0..2 {
            let number = 20 + u32::try_from(position).unwrap();
            Ring::new(&*down).write(position, &entry(number));
            let found = loop {
                match next(Ring::new(&*up), position) {
                    Some(found) => break found,
                    None => spin_loop(),
                }
            };
            assert_eq!(found, expected(number));
        }
        worker.join().unwrap();
    });
}

/// Two threads of the host submit: both take a slot and a position, and the worker finds each entry whole, once.
#[test]
fn two_producers_do_not_mix() {
    model(|| {
        let shared = lines::<2>();
        let (free, tail) = (Arc::new(FreeSlots::default()), Arc::new(AtomicU64::new(0)));
        free.give_back(0);
        free.give_back(1);
        let submit = |number: u32| {
            let (shared, free, tail) = (Arc::clone(&shared), Arc::clone(&free), Arc::clone(&tail));
            move || {
                let slot = free.take(0, 2).expect("two slots for two threads");
                let position = tail.fetch_add(1, Ordering::Relaxed);
                Ring::new(&*shared).write(position, &entry(number * 16 + slot));
            }
        };
        let producers = [thread::spawn(submit(1)), thread::spawn(submit(2))];
        let ring = Ring::new(&*shared);
        let mut seen = [next(ring, 0), next(ring, 1)];
        for producer in producers {
            producer.join().unwrap();
        }
        for (position, found) in (0..).zip(&mut seen) {
            if found.is_some() {
                assert_eq!(*found, next(ring, position), "what was read once has changed");
            }
            *found = next(ring, position);
        }
        let pairs = [[16, 33], [17, 32]];
        let fits = pairs.iter().any(|[a, b]| {
            seen == [Some(expected(*a)), Some(expected(*b))]
                || seen == [Some(expected(*b)), Some(expected(*a))]
        });
        assert!(fits, "{seen:?}");
    });
}
