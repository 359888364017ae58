//! How a call ended, and what a worker can do that only a broken or hostile worker does.

/// How a call ended. The numbers are part of the protocol and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Status {
    /// The function returned; the response is its answer.
    Ok = 0,
    /// The function returned an error; the response is what it says about it.
    Error = 1,
    /// The function panicked; the response is the message.
    Panic = 2,
    /// Stopped while running: its budget was spent, or its deadline passed.
    Timeout = 3,
    /// The deadline passed before it started; it never ran.
    Expired = 4,
    /// The caller took it back.
    Cancelled = 5,
    /// It asked for more memory than a call may have.
    Oom = 6,
    /// It broke the rules of the machine: wild access, stack overflow, trap, abort. The response says which.
    Fault = 7,
    /// It made a system call that the sandbox forbids. The response says which.
    Denied = 8,
    /// The request or response is over its limit.
    TooLarge = 9,
    /// No function has that name or number.
    NotFound = 10,
    /// The function's module could not be loaded.
    LoadFailed = 11,
    /// The function is banned: too many of its calls faulted, or its module broke memory safety.
    Banned = 12,
    /// No slot was free; try again later.
    Overloaded = 13,
    /// The worker died with the call in its hands; the call may have run.
    WorkerLost = 14,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Ok,
        Self::Error,
        Self::Panic,
        Self::Timeout,
        Self::Expired,
        Self::Cancelled,
        Self::Oom,
        Self::Fault,
        Self::Denied,
        Self::TooLarge,
        Self::NotFound,
        Self::LoadFailed,
        Self::Banned,
        Self::Overloaded,
        Self::WorkerLost,
    ];

    /// The status of this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The status of this number, if a worker may report it. The others are the host's own verdicts.
    #[must_use]
    pub fn from_worker(number: u32) -> Option<Self> {
        Self::from_number(number).filter(|s| !matches!(s, Self::Overloaded | Self::WorkerLost))
    }

    /// Its name, as printed everywhere: `OK`, `WORKER_LOST`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Error => "ERROR",
            Self::Panic => "PANIC",
            Self::Timeout => "TIMEOUT",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
            Self::Oom => "OOM",
            Self::Fault => "FAULT",
            Self::Denied => "DENIED",
            Self::TooLarge => "TOO_LARGE",
            Self::NotFound => "NOT_FOUND",
            Self::LoadFailed => "LOAD_FAILED",
            Self::Banned => "BANNED",
            Self::Overloaded => "OVERLOADED",
            Self::WorkerLost => "WORKER_LOST",
        }
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Something in the worker's memory that cannot be true. The only reply is to cut the lane and kill the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A completion entry's tag is neither of this lap nor of the one before.
    Tag {
        /// The tag found.
        found: u32,
        /// The tag of this lap.
        expected: u32,
    },
    /// A completion names a slot that the lane does not have.
    Slot(u32),
    /// A completion for a slot that has no call in flight, or of another generation.
    NotInFlight {
        /// The slot.
        slot: u32,
        /// The generation that the completion gives.
        generation: u32,
    },
    /// A status number that a worker may not report.
    Status(u32),
    /// Reserved bits or words of a completion are set.
    Reserved(u64),
    /// The response is longer than the buffer that the completion names.
    Length {
        /// Body bytes that the completion gives.
        body: u32,
        /// Metadata bytes that the completion gives.
        meta: u32,
    },
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Tag { found, expected } => {
                write!(f, "completion tag {found:#x} where {expected:#x} was due")
            }
            Self::Slot(slot) => write!(f, "completion for slot {slot}, which does not exist"),
            Self::NotInFlight { slot, generation } => {
                write!(f, "completion for slot {slot} generation {generation}, which is not in flight")
            }
            Self::Status(number) => write!(f, "completion with status {number}"),
            Self::Reserved(bits) => write!(f, "completion with reserved bits {bits:#x}"),
            Self::Length { body, meta } => {
                write!(f, "response of {body} body and {meta} metadata bytes is longer than its buffer")
            }
        }
    }
}

impl core::error::Error for Violation {}
