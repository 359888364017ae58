//! A ring of one-line entries with a lap tag in each, so that the consumer polls the entry itself.
//!
//! There is no shared head or tail. Entry `p` lies in line `p mod n` and carries tag `p div n + 1`; a line
//! whose tag is that of the lap before is empty. The producer writes words 1 to 7, then word 0 with the tag, with release;
//! the consumer reads word 0 with acquire, then the others. Both count positions in private memory.
//!
//! A ring is never full: whoever pushes owns a slot, a slot is owned again only after its completion was read, and there are at
//! least as many lines as slots. So position `p` is written only after the consumer has read position `p - n`: if it had not, `n + 1`
//! positions would be outstanding with `n` slots.
//!
//! Submissions have many producers (threads of the host, which take positions from one private counter) and one
//! consumer; completions one of each. A producer that is slow between taking its position and
//! writing it holds up the entries behind it for that long, not the other producers.

use crate::layout::LINE;
use crate::status::Violation;
use crate::sync::{AtomicU64, Ordering, mutant};

/// Words of an entry.
pub const WORDS: usize = LINE / 8;

/// One entry in private memory. The upper half of word 0 is the tag's place and is ignored on writing.
pub type Entry = [u64; WORDS];

/// One entry in shared memory. Every word is written by the producer alone.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Line([AtomicU64; WORDS]);

const _: () = assert!(size_of::<Line>() == LINE || cfg!(loom));

impl Line {
    /// An empty line of a ring that starts at position `start` of `lines` lines; mapped zero pages are this for `start` 0.
    #[must_use]
    pub fn empty(tag: u32) -> Self {
        let line = Self(core::array::from_fn(|_| AtomicU64::new(0)));
        line.0[0].store(u64::from(tag) << 32, Ordering::Relaxed);
        line
    }
}

/// A view of a ring. Holds no position: the two ends keep theirs in private memory.
#[derive(Debug, Clone, Copy)]
pub struct Ring<'a> {
    lines: &'a [Line],
}

impl<'a> Ring<'a> {
    /// A view of `lines`.
    ///
    /// # Panics
    /// Where the number of lines is not a power of two.
    #[must_use]
    pub fn new(lines: &'a [Line]) -> Self {
        assert!(lines.len().is_power_of_two(), "a ring has a power of two of lines, not {}", lines.len());
        Self { lines }
    }

    fn place(&self, position: u64) -> (&'a Line, u32) {
        let mask = self.lines.len() as u64 - 1;
        #[expect(clippy::cast_possible_truncation, reason = "masked to the length of a slice")]
        let index = (position & mask) as usize;
        (&self.lines[index], self.tag(position))
    }

    /// The tag of a position: its lap plus one, wrapping.
    #[must_use]
    pub fn tag(&self, position: u64) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "laps wrap")]
        let lap = (position >> self.lines.len().trailing_zeros()) as u32;
        lap.wrapping_add(1)
    }

    /// Makes every line empty for a ring whose next position is `position`. Before the other side looks at it.
    ///
    /// With a `position` past the first lap no line holds tag 0, so that a zeroed page is not taken for an empty ring.
    pub fn prepare(&self, position: u64) {
        for p in (position..).take(self.lines.len()) {
            let (line, tag) = self.place(p);
            line.0[0].store(u64::from(tag.wrapping_sub(1)) << 32, Ordering::Relaxed);
        }
    }

    /// Publishes an entry at a position that the caller alone has taken.
    #[inline]
    pub fn write(&self, position: u64, entry: &Entry) {
        let (line, tag) = self.place(position);
        for (word, value) in line.0.iter().zip(entry).skip(1) {
            word.store(*value, Ordering::Relaxed);
        }
        let order = if mutant("ring_publish_relaxed") { Ordering::Relaxed } else { Ordering::Release };
        // SYNC POINT A: pairs with the acquire load in `read`.
        line.0[0].store(u64::from(tag) << 32 | (entry[0] & 0xffff_ffff), order);
    }

    /// Reads the entry at a position once, if it has been published.
    ///
    /// # Errors
    /// [`Violation::Tag`] where the line holds neither this lap's entry nor the one before it.
    #[inline]
    pub fn read(&self, position: u64) -> Result<Option<Entry>, Violation> {
        let (line, tag) = self.place(position);
        let order = if mutant("ring_consume_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        // SYNC POINT A: pairs with the release store in `write`.
        let first = line.0[0].load(order);
        let found = (first >> 32) as u32;
        if found != tag && !mutant("ring_tag_unchecked") {
            let before = tag.wrapping_sub(1);
            return if found == before { Ok(None) } else { Err(Violation::Tag { found, expected: tag }) };
        }
        let mut entry = [0; WORDS];
        entry[0] = first & 0xffff_ffff;
        for (value, word) in entry.iter_mut().zip(&line.0).skip(1) {
            *value = word.load(Ordering::Relaxed);
        }
        Ok(Some(entry))
    }

    /// Whether `read` at this position would find something, without copying it.
    #[inline]
    #[must_use]
    pub fn is_ready(&self, position: u64) -> bool {
        let (line, tag) = self.place(position);
        line.0[0].load(Ordering::Relaxed) >> 32 != u64::from(tag.wrapping_sub(1))
    }

    /// Low half of word 0 at a position, as a hint for prefetching; may be torn or stale.
    #[inline]
    #[must_use]
    pub fn peek(&self, position: u64) -> Option<(u32, u64)> {
        let (line, tag) = self.place(position);
        let first = line.0[0].load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let low = first as u32;
        (first >> 32 == u64::from(tag)).then(|| (low, line.0[1].load(Ordering::Relaxed)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn entry(n: u64) -> Entry {
        core::array::from_fn(|i| if i == 0 { n & 0xffff_ffff } else { n + i as u64 })
    }

    fn check(start: u64, lines: usize, count: usize) {
        let storage: Vec<Line> = (0..lines).map(|_| Line::empty(7)).collect();
        let ring = Ring::new(&storage);
        ring.prepare(start);
        for p in (start..).take(count) {
            assert_eq!(ring.read(p), Ok(None));
            ring.write(p, &entry(p));
            assert!(ring.is_ready(p));
            assert_eq!(ring.read(p), Ok(Some(entry(p))));
        }
    }

    #[test]
    fn entries_come_back_in_order() {
        check(0, 4, 20);
        check(0, 1, 5);
    }

    #[test]
    fn positions_and_laps_wrap_in_honest_use() {
        check(0xffff_fffe, 4, 12);
        check(u64::from(u32::MAX) * 4 - 2, 4, 20);
    }

    #[test]
    fn a_tag_of_no_lap_is_a_violation() {
        for tag in [2u32, 3, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let storage = [Line::empty(tag), Line::empty(0)];
            assert_eq!(Ring::new(&storage).read(0), Err(Violation::Tag { found: tag, expected: 1 }));
        }
    }
}
