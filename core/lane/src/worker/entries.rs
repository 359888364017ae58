//! The entries of both rings: what a submission and a completion say, word by word.

use crate::ring::Entry;
use crate::status::{Status, Violation};

/// In a completion: the response lies in the overflow buffer.
pub const FLAG_OVERFLOW: u32 = 1;
/// In a completion of status FAULT or DENIED: the function broke memory safety. The worker serves no more calls, and the module is not to be run again.
pub const FLAG_UNSAFE: u32 = 2;

/// A submission entry.
///
/// Words: 0 slot; 1 generation and function; 2 body and metadata lengths; 3 deadline; 4 flags; 5 when it was submitted; 6 and 7 zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submission {
    /// The slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// Dense number of the function.
    pub function: u32,
    /// Bit set of `microfaas_abi::CALL_*`.
    pub flags: u32,
    /// Body bytes.
    pub body_len: u32,
    /// Metadata bytes.
    pub meta_len: u32,
    /// `CLOCK_MONOTONIC` nanoseconds; `u64::MAX` for never.
    pub deadline_ns: u64,
    /// The machine's cycle counter when it was submitted, as the host says; 0 where it does not. For statistics only.
    pub submitted_cycles: u64,
}

const fn pack(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
pub(super) const fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

impl Submission {
    pub(crate) const fn encode(&self) -> Entry {
        let head =
            [self.slot as u64, pack(self.generation, self.function), pack(self.body_len, self.meta_len)];
        [head[0], head[1], head[2], self.deadline_ns, self.flags as u64, self.submitted_cycles, 0, 0]
    }

    pub(super) const fn decode(entry: &Entry) -> Self {
        let (_, slot) = unpack(entry[0]);
        let (generation, function) = unpack(entry[1]);
        let (body_len, meta_len) = unpack(entry[2]);
        let (_, flags) = unpack(entry[4]);
        let (deadline_ns, submitted_cycles) = (entry[3], entry[5]);
        Self { slot, generation, function, flags, body_len, meta_len, deadline_ns, submitted_cycles }
    }
}

/// A completion entry.
///
/// Words: 0 slot; 1 generation and status; 2 body and metadata lengths; 3 CPU time; 4 flags; 5 to 7 zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// The verdict.
    pub status: Status,
    /// Body bytes of the response.
    pub body_len: u32,
    /// Metadata bytes of the response.
    pub meta_len: u32,
    /// Whether the response lies in the overflow buffer.
    pub overflow: bool,
    /// Whether the function broke memory safety.
    pub is_unsafe: bool,
    /// Time on the core, nanoseconds.
    pub cpu_ns: u64,
}

impl Completion {
    pub(super) const fn encode(&self) -> Entry {
        let flags = (FLAG_OVERFLOW * self.overflow as u32) | (FLAG_UNSAFE * self.is_unsafe as u32);
        let head =
            [self.slot as u64, pack(self.generation, self.status as u32), pack(self.body_len, self.meta_len)];
        [head[0], head[1], head[2], self.cpu_ns, flags as u64, 0, 0, 0]
    }

    /// Decodes a private copy of an entry, for the host: every bit has a meaning or is zero.
    pub(crate) fn decode(entry: &Entry) -> Result<Self, Violation> {
        let (_, slot) = unpack(entry[0]);
        let (generation, status) = unpack(entry[1]);
        let (body_len, meta_len) = unpack(entry[2]);
        let status = Status::from_worker(status);
        let may_be_unsafe = matches!(status, Some(Status::Fault | Status::Denied));
        let known = u64::from(FLAG_OVERFLOW | if may_be_unsafe { FLAG_UNSAFE } else { 0 });
        let reserved = (entry[4] & !known) | entry[5] | entry[6] | entry[7];
        if reserved != 0 {
            return Err(Violation::Reserved(reserved));
        }
        let status = status.ok_or(Violation::Status(unpack(entry[1]).1))?;
        let [overflow, is_unsafe] = [FLAG_OVERFLOW, FLAG_UNSAFE].map(|flag| entry[4] & u64::from(flag) != 0);
        Ok(Self { slot, generation, status, body_len, meta_len, overflow, is_unsafe, cpu_ns: entry[3] })
    }
}
