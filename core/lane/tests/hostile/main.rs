//! The cases of `tests/hostile-ipc/cases.jsonl` that a worker's memory alone can play; for each other one, why it is not here.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod pair;

use microfaas_lane::host::{CPU_NS_MAX, Completed, ReserveError};
use microfaas_lane::layout::{LINE, RING, WORKER_WORDS};
use microfaas_lane::message::{MessageError, check_pair};
use microfaas_lane::slots::Outcome;
use microfaas_lane::worker::Completion;
use microfaas_lane::{Status, Violation};
use pair::{GEOMETRY, Pair};

const CASES: &str = include_str!("../../../../tests/hostile-ipc/cases.jsonl");

enum How {
    Run(fn()),
    /// Why it does not apply, or where it is played.
    Not(&'static str),
}
use How::{Not, Run};

const PROCESSES: &str = "needs real processes: tests/e2e";
const NODE: &str = "is about the node's timers, dispatch or supervision: tests/e2e";
const API: &str = "is about the API of the node and its bindings: core/node, tests/capi";

/// Tag for tail and head: the completion's own line is the only index that a worker can write; the submission ring is read-only to it.
fn table() -> Vec<(&'static str, How)> {
    vec![
        ("A01", Run(|| strange_tag(|tag| tag + 1))),
        ("A02", Run(|| strange_tag(|tag| tag.wrapping_sub(2)))),
        ("A04", Run(indices_wrap)),
        ("A05", Not("there is no shared consumer index, and the worker maps the submission ring read-only")),
        ("A07", Run(in_flight_is_bounded)),
        ("A08", Run(|| strange_tag(|tag| tag + 7))),
        ("A10", Run(random_words)),
        ("A11", Run(boundary_tags)),
        ("B01", Run(|| quarantine(|w| w[2] = (GEOMETRY.small_response_capacity() as u64 + 1) << 32))),
        ("B02", Run(|| quarantine(|w| w[2] = u64::MAX))),
        ("B04", Not("a completion has no offset: the slot number leads to the buffer, see D10")),
        ("B05", Not("a completion has no offset, see B04")),
        ("B07", Not("a completion has no offset, and each lane has a mapping of its own")),
        ("B08", Not("a completion has no offset, see B04")),
        ("B10", Run(|| quarantine(|w| w[1] |= 0xEE))),
        ("B11", Run(|| quarantine(|w| w[4] = 0xffff_ffff))),
        ("B13", Run(|| quarantine(|w| (w[1], w[2]) = (w[1] | 2, (64 * 1024) << 32)))),
        ("B14", Run(split_headers_are_refused)),
        ("B16", Run(absurd_times_are_capped)),
        ("B17", Run(lengths_at_the_limit)),
        ("C01", Run(|| second_store_is_not_seen(2, 0x4000_0000 << 32))),
        ("C02", Not("a completion has no offset, see B04")),
        ("C04", Run(|| second_store_is_not_seen(1, 3))),
        (
            "C05",
            Not(
                "the worker maps the submission ring read-only, and the host never reads it: tests/e2e for the mapping",
            ),
        ),
        ("C07", Run(unpublished_again)),
        ("D01", Run(|| quarantine(|w| (w[0], w[1]) = (2, 0xdead_beef << 32)))),
        ("D02", Run(duplicate_completion)),
        ("D04", Run(late_completion)),
        ("D05", Run(|| quarantine(|w| w[1] = ((w[1] >> 32) + 5) << 32))),
        (
            "D07",
            Run(|| {
                quarantine(|w| (w[0], w[1]) = (0, 0));
                quarantine(|w| (w[0], w[1]) = (0xffff_ffff, 0xffff_ffff << 32));
            }),
        ),
        ("D08", Not("a new lane is new memory, which an old worker has no mapping of: tests/e2e")),
        ("D10", Run(|| quarantine(|w| w[0] = 0x00ff_ffff))),
        ("D11", Run(header_is_not_read_again)),
        ("E01", Not(PROCESSES)),
        ("E02", Not(PROCESSES)),
        ("E04", Not(PROCESSES)),
        (
            "E05",
            Not(
                "the words that say that the host sleeps are read-only to the worker; wait bounded: tests/e2e",
            ),
        ),
        ("E07", Not(PROCESSES)),
        ("E08", Not(PROCESSES)),
        ("F01", Not(PROCESSES)),
        ("F02", Run(zeroed_pages)),
        ("F04", Not("regions are made by the host alone: core/node")),
        ("F05", Not("regions are made by the host alone: core/node")),
        ("F07", Not(PROCESSES)),
        ("F08", Not("is about the control socket: core/control, tests/e2e")),
        ("F10", Run(random_words)),
        ("F11", Not("is about making memory: core/node")),
        ("G01", Not(NODE)),
        ("G02", Not(NODE)),
        ("G04", Not(NODE)),
        ("G05", Not(NODE)),
        ("G07", Not(NODE)),
        ("G08", Not(NODE)),
        ("H01", Not(PROCESSES)),
        ("H02", Not(PROCESSES)),
        ("H04", Not(PROCESSES)),
        ("H05", Not(PROCESSES)),
        ("H07", Not(PROCESSES)),
        ("H08", Not(PROCESSES)),
        ("H10", Not(PROCESSES)),
        ("H11", Not(PROCESSES)),
        ("H13", Not(PROCESSES)),
        ("H14", Not(PROCESSES)),
        ("I01", Run(too_large_is_refused)),
        ("I02", Not(API)),
        ("I04", Not(API)),
        ("I05", Run(released_twice)),
        ("I07", Not(API)),
        ("I08", Not(API)),
        ("I10", Not(API)),
        ("I11", Not(API)),
        ("I13", Not(API)),
        ("I14", Not(API)),
    ]
}

#[test]
fn every_case_is_run_or_says_why_not() {
    let table = table();
    let ids: Vec<&str> =
        CASES.lines().filter_map(|line| line.split("\"id\": \"").nth(1)?.split('"').next()).collect();
    assert_eq!(ids.len(), CASES.lines().count());
    let listed: Vec<&str> = table.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, listed, "the table and the file do not have the same cases");
    for (id, how) in table {
        match how {
            Run(case) => {
                eprintln!("{id}");
                case();
            }
            Not(why) => assert!(why.len() > 20, "{id}: no reason"),
        }
    }
}

/// One call, one bad completion: a violation, then the call is settled and every slot is free.
fn quarantine(change: impl FnOnce(&mut [u64; 5])) {
    let mut pair = Pair::new();
    let ticket = pair.submit();
    pair.complete(0, ticket, change);
    assert!(pair.poll().is_err());
    assert_eq!(pair.host.outcome(ticket), None);
    pair.settle(&[ticket]);
}

fn strange_tag(change: impl FnOnce(u64) -> u64) {
    let mut pair = Pair::new();
    let ticket = pair.submit();
    pair.line(0, change(pair.tag(pair.position)), [0; 5]);
    assert!(matches!(pair.poll(), Err(Violation::Tag { .. })));
    pair.settle(&[ticket]);
}

fn boundary_tags() {
    for tag in [0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        strange_tag(|_| tag);
    }
}

fn indices_wrap() {
    let lap = u64::from(GEOMETRY.ring_entries());
    for start in [0xffff_fffe, u64::from(u32::MAX) * lap - 2] {
        let mut pair = Pair::starting_at(start);
        for _ in 0..8 {
            let ticket = pair.submit();
            let found = pair.worker.pop().unwrap().unwrap();
            assert_eq!((found.slot, found.generation), (ticket.slot, ticket.generation));
            pair.worker.complete(&Completion {
                slot: found.slot,
                generation: found.generation,
                status: microfaas_lane::Status::Ok,
                body_len: 0,
                meta_len: 0,
                overflow: false,
                is_unsafe: false,
                cpu_ns: 0,
            });
            assert_eq!(pair.poll().unwrap().unwrap().ticket, ticket);
            assert_eq!(pair.poll(), Ok(None));
            pair.host.release(ticket);
        }
        pair.settle(&[]);
    }
}

fn in_flight_is_bounded() {
    let mut pair = Pair::new();
    let open: Vec<_> = (0..GEOMETRY.slots()).map(|_| pair.submit()).collect();
    while pair.worker.pop().unwrap().is_some() {}
    for _ in 0..2 * GEOMETRY.slots() {
        assert_eq!(pair.host.reserve(0).unwrap_err(), ReserveError::Exhausted);
    }
    pair.settle(&open);
}

fn random_words() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..64 {
        let mut pair = Pair::new();
        let open: Vec<_> = (0..4).map(|_| pair.submit()).collect();
        for _ in 0..64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let offset = usize::try_from(state >> 33).unwrap() % (RING + 4 * LINE);
            pair.store(
                offset & !7,
                state.rotate_left(17) & if state & 1 == 0 { !0 } else { 0x0003_0000_0007 },
            );
        }
        for _ in 0..8 {
            if pair.poll().is_err() {
                break;
            }
            let _ = pair.host.worker_wish();
        }
        pair.settle(&open);
    }
}

fn split_headers_are_refused() {
    assert_eq!(check_pair(":status", "200\r\nSet-Cookie: x"), Err(MessageError::Value));
}

fn absurd_times_are_capped() {
    for time in [u64::MAX, 1 << 63] {
        let mut pair = Pair::new();
        let ticket = pair.submit();
        pair.complete(0, ticket, |w| w[3] = time);
        assert!(pair.poll().unwrap().is_some());
        assert_eq!(pair.host.outcome(ticket).unwrap().cpu_ns, CPU_NS_MAX);
        pair.settle(&[ticket]);
    }
}

fn lengths_at_the_limit() {
    let most = GEOMETRY.small_response_capacity();
    for (overflow, len) in [(0, most), (0, most - 1), (0, 1), (1, GEOMETRY.response_bytes as usize)] {
        let mut pair = Pair::new();
        let ticket = pair.submit();
        pair.complete(0, ticket, |w| (w[2], w[4]) = ((len as u64) << 32, overflow));
        assert!(pair.poll().unwrap().is_some());
        let outcome = pair.host.outcome(ticket).unwrap();
        assert_eq!(pair.body(ticket, &outcome).len(), len);
        pair.settle(&[ticket]);
    }
}

/// What the worker writes into the entry after the host has read it changes nothing.
fn second_store_is_not_seen(word: usize, value: u64) {
    let mut pair = Pair::new();
    let ticket = pair.submit();
    pair.complete(0, ticket, |w| w[2] = 8 << 32);
    assert!(pair.poll().unwrap().is_some());
    let before = pair.host.outcome(ticket).unwrap();
    pair.complete(0, ticket, |w| w[word] = value);
    assert_eq!(pair.host.outcome(ticket), Some(before));
    assert_eq!(pair.body(ticket, &before).len(), 8);
    pair.settle(&[ticket]);
}

/// Nothing comes; the node's deadline answers the call.
fn unpublished_again() {
    let mut pair = Pair::new();
    let ticket = pair.submit();
    pair.complete(0, ticket, |_| ());
    pair.line(0, pair.tag(pair.position) - 1, [0; 5]);
    assert_eq!(pair.poll(), Ok(None));
    pair.settle(&[ticket]);
}

fn duplicate_completion() {
    let mut pair = Pair::new();
    let ticket = pair.submit();
    pair.complete(0, ticket, |_| ());
    assert!(pair.poll().unwrap().is_some());
    pair.complete(1, ticket, |_| ());
    assert!(matches!(pair.poll(), Err(Violation::NotInFlight { .. })));
    pair.settle(&[ticket]);
}

fn late_completion() {
    let mut pair = Pair::new();
    let ticket = pair.submit();
    assert!(!pair.host.abandon(ticket), "the slot stays taken until the worker lets go of it");
    assert_eq!(pair.host.free_slots(), GEOMETRY.slots() - 1);
    pair.complete(0, ticket, |_| ());
    assert!(pair.poll().unwrap().unwrap().abandoned);
    pair.settle(&[]);
}

fn header_is_not_read_again() {
    let mut pair = Pair::new();
    let ticket = pair.submit();
    (0..WORKER_WORDS).step_by(8).for_each(|offset| pair.store(offset, u64::MAX));
    pair.complete(0, ticket, |_| ());
    assert!(pair.poll().unwrap().is_some());
    pair.settle(&[ticket]);
}

fn zeroed_pages() {
    let mut pair = Pair::new();
    let open: Vec<_> = (0..4).map(|_| pair.submit()).collect();
    pair.store_all(0);
    assert!(matches!(pair.poll(), Err(Violation::Tag { found: 0, .. })));
    pair.settle(&open);
}

fn too_large_is_refused() {
    let pair = Pair::new();
    let max = GEOMETRY.small_bytes as usize;
    assert_eq!(pair.host.reserve(max + 1).unwrap_err(), ReserveError::TooLarge { max });
}

fn released_twice() {
    let mut pair = Pair::new();
    let first = pair.submit();
    pair.complete(0, first, |_| ());
    assert!(pair.poll().unwrap().is_some());
    pair.host.release(first);
    let second = pair.submit();
    assert_eq!(second.slot, first.slot);
    pair.host.release(first);
    assert!(!pair.host.abandon(first));
    assert_eq!(pair.host.free_slots(), GEOMETRY.slots() - 1);
    pair.settle(&[second]);
}

/// Else who counts calls would learn of an answer after its owner.
#[test]
fn who_is_told_first_knows_whether_anybody_waits() {
    for given_up in [false, true] {
        let Pair { host, reader, .. } = &mut Pair::new().with_a_call_that_is_done(given_up);
        let ticket = host.in_flight().next().unwrap();
        let mut told = None;
        let first = |completed: &Completed| told = Some((completed.abandoned, host.outcome(ticket)));
        let done = host.poll_with(reader, first).unwrap().unwrap();
        assert_eq!((told, done.abandoned), (Some((given_up, None)), given_up));
    }
}

#[test]
#[should_panic(expected = "a reservation of another lane")]
fn a_reservation_is_of_its_own_lane_only() {
    let (one, two) = (Pair::new(), Pair::new());
    two.host.cancel_reservation(one.host.reserve(0).unwrap());
}

/// Else two threads would settle calls of one lane, and one of them while the other copies a request.
#[test]
fn a_reader_reads_its_own_lane_only() {
    let (one, mut other) = (Pair::new(), Pair::new());
    let ticket = one.submit();
    let reader = &mut other.reader;
    let lost = Outcome::bare(Status::WorkerLost, true);
    let refused = |act: &mut dyn FnMut()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"a reader of another lane"));
    };
    refused(&mut || {
        let _ = one.host.poll(reader);
    });
    refused(&mut || {
        let _ = one.host.asked(reader, ticket);
    });
    refused(&mut || {
        let _ = one.host.copy_request(reader, ticket, &mut [0; 256]);
    });
    refused(&mut || {
        let _ = one.host.settle(reader, ticket, &lost);
    });
    refused(&mut || one.host.settle_all(reader, |_| ()));
    assert!(one.host.in_flight().eq([ticket]), "it is on its way still");
}

#[test]
#[should_panic(expected = "outside a response")]
fn an_outcome_made_by_hand_leads_nowhere() {
    let mut pair = Pair::new();
    let ticket = pair.submit();
    pair.complete(0, ticket, |_| ());
    assert!(pair.poll().unwrap().is_some());
    let mut outcome = pair.host.outcome(ticket).unwrap();
    outcome.body_len = u32::MAX;
    let mut one = [std::mem::MaybeUninit::uninit()];
    pair.host.copy_response(ticket, &outcome, 1 << 31, &mut one);
}

#[test]
#[should_panic(expected = "not of this lane")]
fn a_worker_s_slot_made_by_hand_leads_nowhere() {
    let pair = Pair::new();
    let _ = pair.worker.small_response(GEOMETRY.slots());
}
