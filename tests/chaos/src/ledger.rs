//! The oracle's memory: what became of each request. One word for each, in a table that is as large as it will ever be before anything is measured.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use microfaas_node::Status;
use serde::{Deserialize, Serialize};

/// After a call's deadline, for its outcome to be there.
pub const GRACE: Duration = Duration::from_secs(10);
/// A refusal that takes longer was not at once. Long, because the machine may be busy with others.
const REFUSE_WITHIN: Duration = Duration::from_secs(5);
/// Findings that are described in words; more are only counted.
const WORDS_MAX: usize = 20;

/// The low byte of a word; the rest is the time in microseconds by which it must have changed.
const FREE: u64 = 0;
const OFFERED: u64 = 1;
const ACCEPTED: u64 = 2;
const REFUSED: u64 = 3;
const HUNG_UP: u64 = 4;
const SETTLED: u64 = 5;
/// Set when an answer arrived that carries this number.
const ANSWERED: u64 = 1 << 7;
const STATE: u64 = ANSWERED - 1;

/// See the module. Any thread may write.
#[derive(Debug)]
pub struct Ledger {
    rows: Box<[AtomicU64]>,
    next: AtomicU64,
    began: Instant,
    outcomes: [AtomicU64; Status::ALL.len()],
    refused: AtomicU64,
    hung_up: AtomicU64,
    doubled: AtomicU64,
    wrong: AtomicU64,
    late: AtomicU64,
    words: Mutex<Vec<String>>,
}

/// What the books say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Submitted, and taken.
    pub accepted: u64,
    /// Of those: ended, each in one way.
    pub completed: u64,
    /// Ended with the right answer.
    pub ok: u64,
    /// Not ended in time.
    pub lost: u64,
    /// Ended twice, or answered twice.
    pub doubled: u64,
    /// Ended OK with an answer that is not theirs.
    pub wrong: u64,
    /// Submitted, and not taken.
    pub refused: u64,
    /// Ended after their deadline and the grace.
    pub late: u64,
    /// Whose caller took them back.
    pub hung_up: u64,
}

impl Counts {
    /// Adds those of another ledger.
    pub fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.completed += other.completed;
        self.ok += other.ok;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.late += other.late;
        self.hung_up += other.hung_up;
    }
}

impl Ledger {
    /// A table for this many requests.
    #[must_use]
    pub fn new(requests: usize) -> Self {
        Self::since(Instant::now(), requests)
    }

    /// As [`new`](Self::new), for requests that may have been made from this moment on.
    #[must_use]
    pub fn since(began: Instant, requests: usize) -> Self {
        // Written, so that the memory is there from the beginning.
        let rows = (0..requests).map(|_| AtomicU64::new(FREE)).collect();
        Self {
            rows,
            next: AtomicU64::new(0),
            began,
            outcomes: Default::default(),
            refused: AtomicU64::new(0),
            hung_up: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            late: AtomicU64::new(0),
            words: Mutex::default(),
        }
    }

    fn micros(&self, time: Instant) -> u64 {
        u64::try_from(time.duration_since(self.began).as_micros()).unwrap_or(u64::MAX) << 8 >> 8
    }

    /// The number of a request that is about to be submitted; `None` where the table is full.
    #[must_use]
    pub fn offer(&self) -> Option<u64> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.row(id)?.store(OFFERED, Ordering::Relaxed);
        Some(id)
    }

    /// Whether no request can be made any more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.rows.len() as u64
    }

    fn row(&self, id: u64) -> Option<&AtomicU64> {
        self.rows.get(usize::try_from(id).ok()?)
    }

    /// It was taken, and is to end by this time and the grace.
    pub fn accept(&self, id: u64, due: Instant) {
        let due = self.micros(due + GRACE);
        self.step(id, OFFERED, ACCEPTED, due);
    }

    /// It was refused.
    pub fn refuse(&self, id: u64, took: Duration) {
        self.step(id, OFFERED, REFUSED, 0);
        self.refused.fetch_add(1, Ordering::Relaxed);
        if took > REFUSE_WITHIN {
            self.late.fetch_add(1, Ordering::Relaxed);
            self.say(|| format!("request {id} was refused after {took:?}"));
        }
    }

    /// Its caller took it back.
    pub fn hang_up(&self, id: u64) {
        if self.step(id, ACCEPTED, HUNG_UP, 0) {
            self.hung_up.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It ended.
    pub fn settle(&self, id: u64, status: Status) {
        if self.step(id, ACCEPTED, SETTLED, 0) {
            self.outcomes[status as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An answer came that carries this number, whoever it was for.
    pub fn answered(&self, id: u64) {
        let before = self.row(id).map(|row| row.fetch_or(ANSWERED, Ordering::Relaxed));
        match before {
            Some(word) if word & ANSWERED != 0 => {
                self.doubled.fetch_add(1, Ordering::Relaxed);
                self.say(|| format!("request {id} was answered twice"));
            }
            Some(word) if word & STATE != FREE => {}
            _ => self.wrong(id, "an answer to a request that was never made"),
        }
    }

    /// It ended OK with something that is not its answer.
    pub fn wrong(&self, id: u64, why: impl std::fmt::Display) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        self.say(|| format!("request {id}: {why}"));
    }

    /// Takes a row from one state to the next; false, and noted, where it was in another one.
    fn step(&self, id: u64, from: u64, to: u64, due: u64) -> bool {
        let Some(row) = self.row(id) else {
            self.wrong(id, "an outcome for a request that was never made");
            return false;
        };
        let set = |word: u64| (word & STATE == from).then_some(due << 8 | word & ANSWERED | to);
        match row.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set) {
            Ok(before) => {
                let due = before >> 8;
                if from == ACCEPTED && self.micros(Instant::now()) > due {
                    self.late.fetch_add(1, Ordering::Relaxed);
                    self.say(|| format!("request {id} ended after its deadline and {GRACE:?}"));
                }
                true
            }
            Err(before) if before & STATE > ACCEPTED => {
                self.doubled.fetch_add(1, Ordering::Relaxed);
                self.say(|| format!("request {id} ended twice"));
                false
            }
            Err(_) => {
                self.wrong(id, "an outcome for a request that was never accepted");
                false
            }
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        let mut words = self.words.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if words.len() < WORDS_MAX {
            words.push(what());
        }
    }

    /// How many of this status so far.
    #[must_use]
    pub fn outcomes(&self, status: Status) -> u64 {
        self.outcomes[status as usize].load(Ordering::Relaxed)
    }

    /// Requests whose outcome is not there though it is due, or, with `all`, whose outcome is not there.
    #[must_use]
    pub fn open(&self, all: bool) -> u64 {
        let now = self.micros(Instant::now());
        let used = usize::try_from(self.next.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let is_open = |row: &&AtomicU64| {
            let word = row.load(Ordering::Relaxed);
            matches!(word & STATE, OFFERED | ACCEPTED) && (all || word & STATE == ACCEPTED && word >> 8 < now)
        };
        self.rows.iter().take(used).filter(is_open).count() as u64
    }

    /// The books as they are when nobody submits or waits any more: what is open then is lost.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let settled: u64 = self.outcomes.iter().map(get).sum();
        let (hung_up, lost) = (get(&self.hung_up), self.open(true));
        Counts {
            accepted: settled + hung_up + lost,
            completed: settled + hung_up,
            ok: self.outcomes(Status::Ok),
            lost,
            doubled: get(&self.doubled),
            wrong: get(&self.wrong),
            refused: get(&self.refused),
            late: get(&self.late),
            hung_up,
        }
    }

    /// What was found, in words.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.words.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
