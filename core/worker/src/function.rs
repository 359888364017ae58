//! The dispatch table: from a function's dense number to its entry and what its calls may use.

use microfaas_control::{Limits, Policy};
use microfaas_preempt::Entry;
use microfaas_sys::clock::{CycleClock, cycles};

/// Longest slice while a function is not known to overrun. The timer is then due a few times in this time at most, whatever the calls do, which costs half
/// a percent of the core; the first overrun is noticed so much late.
pub const COARSE_NS: u64 = 4_000_000;
/// Calls within their first slice after which a function that overran is trusted again. Where one in fifty overruns, hardly any overrun finds it trusted (with 64 calls one
/// in four did, and all who waited behind it waited for [`COARSE_NS`]); and short calls that are watched cost one alarm in a quantum.
const FINE_CALLS: u32 = 512;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// No such function.
    None,
    /// Its module was refused.
    Refused,
    /// The module of this number has it, and is loaded when it is called.
    Cold(u32),
    /// Its module is gone; calls that come late go to this number.
    Moved(u32),
    /// It can be called.
    Loaded(Function),
    /// It could be called, but is not to be. Calls that are suspended go on.
    Banned(Function),
}

impl Target {
    /// What is loaded, banned or not.
    #[inline]
    #[must_use]
    pub fn loaded(&self) -> Option<&Function> {
        match self {
            Self::Loaded(function) | Self::Banned(function) => Some(function),
            Self::None | Self::Refused | Self::Cold(_) | Self::Moved(_) => None,
        }
    }

    /// As [`loaded`](Self::loaded), to change it.
    #[inline]
    #[must_use]
    pub fn loaded_mut(&mut self) -> Option<&mut Function> {
        match self {
            Self::Loaded(function) | Self::Banned(function) => Some(function),
            Self::None | Self::Refused | Self::Cold(_) | Self::Moved(_) => None,
        }
    }

    /// Bans it, or lifts its ban.
    pub fn ban(&mut self, banned: bool) {
        if let Self::Loaded(function) | Self::Banned(function) = *self {
            *self = if banned { Self::Banned(function) } else { Self::Loaded(function) };
        }
    }
}

/// A function that can be called.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Its module's entry.
    pub entry: Entry,
    /// Number of the instance.
    pub instance: u32,
    /// Keeps its statics from call to call.
    pub stateful: bool,
    /// Length of a slice.
    pub quantum_ns: u64,
    /// CPU time at which a safe point ends the call.
    pub soft_ns: u64,
    /// CPU time at which the call is ended.
    pub budget_ns: u64,
    /// Longest first slice, in nanoseconds.
    pub first_slice_ns_max: u64,
    /// When its latest call was started, or else its module loaded, in cycles.
    pub used: u64,
    coarse_cycles: u64,
    fine_cycles: u64,
    fine_calls: u32,
}

impl Function {
    /// A row for an entry with these limits.
    #[must_use]
    pub fn new(entry: Entry, instance: u32, limits: &Limits, clock: &CycleClock) -> Self {
        let budget_ns = match limits.policy {
            Policy::Share => limits.budget_ns.max(limits.quantum_ns),
            Policy::Kill => limits.quantum_ns,
        };
        // A tenth of the budget, at most a millisecond, is left for unwinding.
        let soft_ns = budget_ns - (budget_ns / 10).min(1_000_000);
        let first = limits.quantum_ns.min(soft_ns);
        Self {
            entry,
            instance,
            stateful: limits.stateful,
            quantum_ns: limits.quantum_ns,
            soft_ns,
            budget_ns,
            first_slice_ns_max: first.max(COARSE_NS),
            used: cycles(),
            coarse_cycles: clock.to_cycles(first.max(COARSE_NS)),
            fine_cycles: clock.to_cycles(first),
            fine_calls: 0,
        }
    }

    /// Cycles that a call may run before the worker looks at it for the first time.
    #[inline]
    #[must_use]
    pub fn first_slice(&self) -> u64 {
        if self.fine_calls == 0 { self.coarse_cycles } else { self.fine_cycles }
    }

    /// A call was over within its first slice.
    #[inline]
    pub fn was_short(&mut self) {
        self.fine_calls = self.fine_calls.saturating_sub(1);
    }

    /// A call overran: the next ones are watched from their quantum on.
    pub fn overran(&mut self) {
        self.fine_calls = FINE_CALLS;
    }
}
