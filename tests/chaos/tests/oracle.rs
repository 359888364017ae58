//! That the oracle can fail: it is told of a lost, a doubled and a wrong answer, and must say so.

use std::time::{Duration, Instant};

use microfaas_chaos::books::{Known, Said};
use microfaas_chaos::ledger::{Counts, Ledger};
use microfaas_chaos::question::{Question, Wrong, answer};
use microfaas_node::Status;

fn accepted(ledger: &Ledger) -> u64 {
    let id = ledger.offer().expect("the table has room");
    ledger.accept(id, Instant::now() + Duration::from_secs(60));
    id
}

fn honest(ledger: &Ledger) {
    let id = accepted(ledger);
    ledger.settle(id, Status::Ok);
    ledger.answered(id);
}

#[test]
fn an_honest_run_is_clean() {
    let ledger = Ledger::new(4);
    (0..2).for_each(|_| honest(&ledger));
    ledger.hang_up(accepted(&ledger));
    let refused = ledger.offer().expect("the table has room");
    ledger.refuse(refused, Duration::ZERO);
    let expected = Counts { accepted: 3, completed: 3, ok: 2, refused: 1, hung_up: 1, ..Counts::default() };
    assert_eq!(ledger.counts(), expected);
    assert!(ledger.is_full() && ledger.offer().is_none() && ledger.words().is_empty());
}

#[test]
fn a_lost_answer_is_found() {
    let ledger = Ledger::new(4);
    honest(&ledger);
    accepted(&ledger);
    let counts = ledger.counts();
    assert_eq!((counts.accepted, counts.completed, counts.lost), (2, 1, 1));
}

#[test]
fn a_doubled_outcome_is_found() {
    let ledger = Ledger::new(4);
    let id = accepted(&ledger);
    ledger.settle(id, Status::WorkerLost);
    ledger.settle(id, Status::Ok);
    let counts = ledger.counts();
    assert_eq!((counts.completed, counts.doubled, counts.lost), (1, 1, 0));
    assert_eq!(ledger.words(), [format!("request {id} ended twice")]);
}

#[test]
fn an_answer_that_comes_twice_is_found() {
    let ledger = Ledger::new(4);
    honest(&ledger);
    // Another call is given the first one's answer.
    let second = accepted(&ledger);
    ledger.settle(second, Status::Ok);
    ledger.answered(0);
    ledger.wrong(second, Wrong::Other(0));
    let counts = ledger.counts();
    assert_eq!((counts.doubled, counts.wrong), (1, 1));
}

#[test]
fn a_wrong_answer_is_found() {
    let question = Question { id: 3, nonce: 4, spin_us: 0, payload: 10 };
    assert!(question.check(&answer(&question, 0)).is_ok());
    assert_eq!(question.check(&answer(&Question { nonce: 5, ..question }, 0)), Err(Wrong::Result));
    let ledger = Ledger::new(4);
    ledger.settle(3, Status::Ok);
    ledger.answered(99);
    assert_eq!(ledger.counts().wrong, 2, "outcomes of requests that were never made");
}

#[test]
fn an_outcome_that_is_late_is_found() {
    let ledger = Ledger::new(4);
    let id = ledger.offer().expect("the table has room");
    let past = Instant::now().checked_sub(Duration::from_secs(3600));
    // A machine that has just been started has no such past.
    let Some(past) = past else { return };
    let ledger = Ledger::since(past, 4);
    assert_eq!(ledger.offer(), Some(id));
    ledger.accept(id, past + Duration::from_secs(1));
    assert_eq!(ledger.open(false), 1);
    ledger.settle(id, Status::Ok);
    assert_eq!(ledger.counts().late, 1);
}

/// What a node says that has been called as `known` says.
fn said(known: &Known) -> Said {
    let mut exported = known.ended;
    exported[Status::Overloaded as usize] += known.refused;
    exported[Status::Cancelled as usize] += known.hung_up;
    Said { accepted: known.accepted, ok: known.ended[Status::Ok as usize], exported, restarts: 1 }
}

#[test]
fn counters_that_are_off_are_found() {
    let mut known = Known { accepted: 31, hung_up: 1, refused: 3, ..Known::default() };
    known.ended[Status::Ok as usize] = 25;
    known.ended[Status::Panic as usize] = 5;
    let right = said(&known);
    assert!(right.differs(&known, false).is_empty());
    let ok = Status::Ok as usize;
    let off = |what: &str, change: fn(&mut Said), with_guests: bool| {
        let mut said = right.clone();
        change(&mut said);
        assert!(!said.differs(&known, false).is_empty(), "{what}");
        assert_eq!(!said.differs(&known, true).is_empty(), with_guests, "{what}, with guests");
    };
    off("one accepted too many", |said| said.accepted += 1, true);
    off("one OK too few", |said| said.ok -= 1, true);
    off("one exported too many", |said| said.exported[Status::Fault as usize] += 1, false);
    off("one exported twice", |said| said.exported[Status::Ok as usize] += 2, false);
    off("two exported too few", |said| said.exported[Status::Panic as usize] -= 2, true);
    off("refusals are not exported", |said| said.exported[Status::Overloaded as usize] = 0, true);
    let mut last = right.clone();
    last.exported[ok] -= 1;
    assert!(last.differs(&known, false).is_empty(), "the last answer of a worker that was killed");
    let mut quick = right;
    (quick.ok, quick.exported[ok], quick.exported[Status::Cancelled as usize]) = (26, 26, 0);
    assert!(quick.differs(&known, false).is_empty(), "it was answered just as its caller left");
}
