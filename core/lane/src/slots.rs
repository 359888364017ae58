//! Which slots are free, and what the host knows of the call in each: private memory of the host.
//!
//! Free slots are bits, lowest first, so that a lane with few calls in flight keeps to few slots and their lines stay warm.
//! Taking and giving back are lock-free and may be done by any thread of the host.
//!
//! A [`Record`] is the host's own truth about a slot, against which all that comes from the worker is checked:
//!
//! | state | left by | to |
//! | --- | --- | --- |
//! | FREE | owner of the slot, on submit | SUBMITTED |
//! | SUBMITTED | reader of the completion ring | DONE |
//! | SUBMITTED | owner that no longer cares | ABANDONED |
//! | ABANDONED | reader of the completion ring | FREE, next generation |
//! | DONE | owner that has taken the answer | FREE, next generation |

use crate::layout::SLOTS_MAX;
use crate::status::Status;
use crate::sync::{AtomicU64, Ordering, mutant};

const WORD_COUNT: usize = SLOTS_MAX as usize / 64;

/// The free slots of one lane, in two ranges.
#[derive(Debug)]
pub struct FreeSlots {
    words: [AtomicU64; WORD_COUNT],
}

impl Default for FreeSlots {
    fn default() -> Self {
        Self { words: core::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl FreeSlots {
    /// Takes the lowest free slot of `first..end`.
    #[inline]
    #[must_use]
    pub fn take(&self, first: u32, end: u32) -> Option<u32> {
        let mut base = first & !63;
        while base < end {
            let word = &self.words[(base / 64) as usize];
            let mask = (!0u64 << first.saturating_sub(base).min(63))
                & if end - base >= 64 { !0 } else { (1u64 << (end - base)) - 1 };
            let mut seen = word.load(Ordering::Relaxed);
            while seen & mask != 0 {
                let bit = (seen & mask).trailing_zeros();
                // SYNC POINT D: pairs with the release in `give_back`; the earlier owner's writes come first.
                let order = if mutant("slots_take_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
                if mutant("slots_take_unchecked") {
                    word.store(seen & !(1 << bit), order);
                    return Some(base + bit);
                }
                match word.compare_exchange(seen, seen & !(1 << bit), order, Ordering::Relaxed) {
                    Ok(_) => return Some(base + bit),
                    Err(now) => seen = now,
                }
            }
            base += 64;
        }
        None
    }

    /// Makes a slot free. The caller owns it.
    #[inline]
    pub fn give_back(&self, slot: u32) {
        let order = if mutant("slots_give_back_relaxed") { Ordering::Relaxed } else { Ordering::Release };
        // SYNC POINT D: pairs with the acquire in `take`.
        self.words[(slot / 64) as usize].fetch_or(1 << (slot % 64), order);
    }

    /// How many of `0..end` are free; may be stale at once.
    #[must_use]
    pub fn count(&self, end: u32) -> u32 {
        (0..end.div_ceil(64))
            .map(|i| {
                let inside = if end - i * 64 >= 64 { !0 } else { (1u64 << (end - i * 64)) - 1 };
                (self.words[i as usize].load(Ordering::Relaxed) & inside).count_ones()
            })
            .sum()
    }
}

/// Codes in the lower half of a record's word.
const FREE: u32 = 0;
const SUBMITTED: u32 = 1;
const ABANDONED: u32 = 2;
const DONE: u32 = 3;

const fn word(generation: u32, code: u32) -> u64 {
    (generation as u64) << 32 | code as u64
}

/// How a call ended, as checked by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub status: Status,
    /// Body bytes of the response.
    pub body_len: u32,
    /// Metadata bytes of the response.
    pub meta_len: u32,
    /// Whether the response lies in the overflow buffer.
    pub overflow: bool,
    /// Whether the worker never began to run it.
    pub never_started: bool,
    /// Time it had the core, as the worker says, in nanoseconds.
    pub cpu_ns: u64,
}

impl Outcome {
    /// An outcome without a response, decided by the host.
    #[must_use]
    pub const fn bare(status: Status, never_started: bool) -> Self {
        Self { status, body_len: 0, meta_len: 0, overflow: false, never_started, cpu_ns: 0 }
    }
}

/// What settling a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Settled {
    /// The owner will take the outcome.
    Done,
    /// Nobody wants it; the slot is the settler's to give back.
    Abandoned,
    /// There is no such call.
    NotInFlight,
}

/// The host's record of one slot.
#[repr(align(64))]
#[derive(Debug)]
pub struct Record {
    word: AtomicU64,
    outcome: AtomicU64,
    lengths: AtomicU64,
    cpu_ns: AtomicU64,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            word: AtomicU64::new(word(1, FREE)),
            outcome: AtomicU64::new(0),
            lengths: AtomicU64::new(0),
            cpu_ns: AtomicU64::new(0),
        }
    }
}

impl Record {
    /// Owner of a FREE record: opens the call; returns its generation.
    #[inline]
    pub fn submit(&self) -> u32 {
        let generation = (self.word.own() >> 32) as u32;
        let order = if mutant("record_submit_relaxed") { Ordering::Relaxed } else { Ordering::Release };
        // SYNC POINT G: pairs with the acquire in `in_flight` and `is_wanted`; the request and what it asks are then visible.
        self.word.store(word(generation, SUBMITTED), order);
        generation
    }

    /// Owner of a FREE record, before [`submit`](Self::submit): what the call asks, for one who sends it elsewhere. Outcome and request share the words.
    #[inline]
    pub fn asks(&self, body_len: u32, meta_len: u32) {
        self.lengths.store(u64::from(body_len) << 32 | u64::from(meta_len), Ordering::Relaxed);
    }

    /// Reader of the completion ring: body and metadata bytes of the request of a call that is [in flight](Self::in_flight).
    #[must_use]
    pub fn asked(&self) -> (u32, u32) {
        let lengths = self.lengths.load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
        let lengths = ((lengths >> 32) as u32, lengths as u32);
        lengths
    }

    /// Whether a call of this generation is on its way and its owner waits for it.
    #[must_use]
    pub fn is_wanted(&self, generation: u32) -> bool {
        self.seen() == word(generation, SUBMITTED)
    }

    fn seen(&self) -> u64 {
        let order = if mutant("record_in_flight_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        // SYNC POINT G: pairs with the release in `submit`.
        self.word.load(order)
    }

    /// Generation of the slot now.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u32 {
        (self.word.load(Ordering::Relaxed) >> 32) as u32
    }

    /// Whether a call of this generation is on its way, wanted or not.
    #[inline]
    #[must_use]
    pub fn in_flight(&self, generation: u32) -> bool {
        let seen = self.seen();
        seen == word(generation, SUBMITTED) || seen == word(generation, ABANDONED)
    }

    /// Reader of the completion ring: records the outcome of a call that is [in flight](Self::in_flight). One thread at a time.
    #[inline]
    pub fn settle(&self, generation: u32, outcome: &Outcome) -> Settled {
        let flags = u64::from(outcome.overflow) << 32 | u64::from(outcome.never_started) << 33;
        self.outcome.store(outcome.status as u64 | flags, Ordering::Relaxed);
        self.lengths
            .store(u64::from(outcome.body_len) << 32 | u64::from(outcome.meta_len), Ordering::Relaxed);
        self.cpu_ns.store(outcome.cpu_ns, Ordering::Relaxed);
        let submitted = word(generation, SUBMITTED);
        let done = word(generation, DONE);
        let order = if mutant("record_settle_relaxed") { Ordering::Relaxed } else { Ordering::AcqRel };
        if mutant("record_settle_unchecked") && self.in_flight(generation) {
            self.word.store(done, order);
            return Settled::Done;
        }
        // SYNC POINT E: pairs with the acquire in `outcome`; the three words above are then visible. Where it fails, SYNC POINT H: pairs with the release in `abandon`.
        match self.word.compare_exchange(submitted, done, order, Ordering::Acquire) {
            Ok(_) => Settled::Done,
            Err(_) if self.free(generation, ABANDONED) => Settled::Abandoned,
            Err(_) => Settled::NotInFlight,
        }
    }

    /// Ends the generation where the record is in the state of that code. True for exactly one caller.
    #[inline]
    fn free(&self, generation: u32, code: u32) -> bool {
        let (from, to) = (word(generation, code), word(generation.wrapping_add(1), FREE));
        if mutant("record_close_unchecked") {
            let seen = self.word.load(Ordering::Acquire);
            self.word.store(if seen == from { to } else { seen }, Ordering::Release);
            return seen == from;
        }
        self.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Owner: the outcome, once there is one.
    #[inline]
    #[must_use]
    pub fn outcome(&self, generation: u32) -> Option<Outcome> {
        let order = if mutant("record_outcome_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        // SYNC POINT E: pairs with the release in `settle`.
        if self.word.load(order) != word(generation, DONE) {
            return None;
        }
        let packed = self.outcome.load(Ordering::Relaxed);
        let lengths = self.lengths.load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
        let (status, body_len, meta_len) = (packed as u32, (lengths >> 32) as u32, lengths as u32);
        Some(Outcome {
            status: Status::from_number(status)?,
            body_len,
            meta_len,
            overflow: packed >> 32 & 1 == 1,
            never_started: packed >> 33 & 1 == 1,
            cpu_ns: self.cpu_ns.load(Ordering::Relaxed),
        })
    }

    /// Owner: will not take the outcome. True when the call is still in flight and its reader frees the slot;
    /// false when the outcome is there, and the owner still has to [`close`](Self::close).
    #[inline]
    #[must_use]
    pub fn abandon(&self, generation: u32) -> bool {
        let (from, to) = (word(generation, SUBMITTED), word(generation, ABANDONED));
        if mutant("record_abandon_unchecked") {
            let seen = self.word.load(Ordering::Acquire);
            self.word.store(if seen == from { to } else { seen }, Ordering::Release);
            return seen == from;
        }
        let order = if mutant("record_abandon_relaxed") { Ordering::Relaxed } else { Ordering::AcqRel };
        // SYNC POINT H: pairs with the acquire in `settle`; what the owner did to the slot comes before its next owner.
        self.word.compare_exchange(from, to, order, Ordering::Acquire).is_ok()
    }

    /// Owner: has taken the outcome; the next call of the slot is of the next generation. True for exactly one caller
    /// for each generation, however many threads hold its number: that one gives the slot back.
    #[inline]
    #[must_use]
    pub fn close(&self, generation: u32) -> bool {
        self.free(generation, DONE)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_respected_and_lowest_goes_first() {
        let free = FreeSlots::default();
        for slot in 0..130 {
            free.give_back(slot);
        }
        assert_eq!(free.take(0, 100), Some(0));
        assert_eq!(free.take(100, 130), Some(100));
        for expected in 1..100 {
            assert_eq!(free.take(0, 100), Some(expected));
        }
        assert_eq!(free.take(0, 100), None);
        assert_eq!(free.count(130), 29);
        assert_eq!(free.count(110), 9);
        free.give_back(63);
        assert_eq!(free.take(0, 100), Some(63));
    }

    #[test]
    fn a_record_takes_one_outcome() {
        let record = Record::default();
        let generation = record.submit();
        let outcome =
            Outcome { overflow: true, body_len: 9, cpu_ns: 5, ..Outcome::bare(Status::Panic, false) };
        assert_eq!(record.outcome(generation), None);
        assert_eq!(record.settle(generation + 1, &outcome), Settled::NotInFlight);
        assert_eq!(record.settle(generation, &outcome), Settled::Done);
        assert_eq!(record.outcome(generation), Some(outcome));
        assert!(!record.abandon(generation));
        assert!(!record.in_flight(generation));
        assert!(record.close(generation));
        assert!(!record.close(generation), "a second owner must not free the slot again");
        assert_eq!(record.settle(generation, &outcome), Settled::NotInFlight);
    }

    #[test]
    fn an_abandoned_call_frees_its_slot_when_it_ends() {
        let record = Record::default();
        let generation = record.submit();
        assert!(record.abandon(generation));
        assert!(record.in_flight(generation));
        assert_eq!(record.settle(generation, &Outcome::bare(Status::Ok, false)), Settled::Abandoned);
        assert_eq!(record.generation(), generation + 1);
    }
}
