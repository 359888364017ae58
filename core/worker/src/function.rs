//! The dispatch table: from a function's dense number to its entry and what its calls may use.

use microfaas_control::{Limits, Policy};
use microfaas_preempt::Entry;
use microfaas_sys::clock::{CycleClock, cycles};

/// Longest slice while a function is not known to overrun. The timer is then due a few times in this time at most, whatever the calls do, which costs half
/// a percent of the core; the first overrun is noticed so much late.
pub const COARSE_NS: u64 = 4_000_000;
/// Short calls after which a function that overran is no longer watched. Where one in fifty overruns, hardly any overrun finds it trusted (with 64 calls one
/// in four did, and all who waited behind it waited for [`COARSE_NS`]); and short calls that are watched cost one alarm in a quantum.
const FINE_CALLS: u32 = 512;
/// Short calls for which a function is watched that is new here: it was deployed, or its module was cold. Of functions that overrun in one call of fourteen, 99 in a hundred
/// overrun within so many. They cost 64 alarms at most, 1.3 ms in all: less than one call does that is found out at the end of a coarse slice. They are looked at
/// [`OVERRUN_NS`] after their quantum: the first ones find their code in no cache and on no page yet, and are not to be ended for that where the policy is `kill`.
const PROBATION_CALLS: u32 = 64;
/// Short calls after which the first overrun that no alarm has found is forgotten. Two that are closer to each other are no accident.
const SUSPICIOUS: u32 = 128;
/// A call has overrun that took so much more than its quantum. What interrupts the worker is in the time of the call that it interrupts: the kernel's tick alone takes some
/// 30 us on a virtual machine, a few hundred times in a second. That is not to make short calls watched, which would then take longer for it.
pub const OVERRUN_NS: u64 = 50_000;

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
    /// From here on a call may have overrun. See [`OVERRUN_NS`].
    overrun_cycles: u64,
    /// 0: trusted, as far as the end of a coarse slice. Up to [`SUSPICIOUS`]: so still, but for one more overrun. As much as [`PROBATION_CALLS`] above that: watched, and not found
    /// at fault before it has overrun for sure. Above that: watched from its quantum on.
    suspicion: u32,
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
            overrun_cycles: clock.to_cycles(limits.quantum_ns.saturating_add(OVERRUN_NS)),
            suspicion: SUSPICIOUS + PROBATION_CALLS,
        }
    }

    /// Between being told to end at a safe point and being ended: a tenth of the budget, at most a millisecond.
    #[inline]
    #[must_use]
    pub fn grace_ns(&self) -> u64 {
        self.budget_ns - self.soft_ns
    }

    /// Cycles that a call may run before the worker looks at it for the first time.
    #[inline]
    #[must_use]
    pub fn first_slice(&self) -> u64 {
        if self.suspicion <= SUSPICIOUS {
            self.coarse_cycles
        } else if self.suspicion <= SUSPICIOUS + PROBATION_CALLS {
            self.overrun_cycles.min(self.coarse_cycles)
        } else {
            self.fine_cycles
        }
    }

    /// Whether a call that took so many cycles was short, whatever else they went to. Else its CPU time says [whether it has overrun](Self::has_overrun).
    #[inline]
    #[must_use]
    pub fn is_short(&self, cycles: u64) -> bool {
        cycles < self.overrun_cycles
    }

    /// Whether a call that has used so much of the core has overrun.
    #[must_use]
    pub fn has_overrun(&self, used_ns: u64) -> bool {
        used_ns >= self.quantum_ns.saturating_add(OVERRUN_NS)
    }

    /// A call was short.
    #[inline]
    pub fn was_short(&mut self) {
        self.suspicion = self.suspicion.saturating_sub(1);
    }

    /// A call overran, and was over before an alarm found it.
    #[cold]
    pub fn overran_unseen(&mut self) {
        self.suspicion = if self.suspicion == 0 { SUSPICIOUS } else { SUSPICIOUS + FINE_CALLS };
    }

    /// A call is over that came to the end of its first slice, and has used so much of the core in all. One that is watched does so at its quantum, also where it is short.
    pub fn was_seen(&mut self, used_ns: u64) {
        if self.has_overrun(used_ns) {
            self.overran();
        } else {
            self.was_short();
        }
    }

    /// An alarm has found a call that overran: the next ones are watched from their quantum on.
    pub fn overran(&mut self) {
        self.suspicion = SUSPICIOUS + FINE_CALLS;
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;
    use std::time::Duration;

    use super::*;

    const QUANTUM_NS: u64 = 100_000;

    extern "C" fn entry(_: *mut c_void) -> u32 {
        0
    }

    fn function(quantum_ns: u64) -> Function {
        let clock = CycleClock::calibrate(Duration::from_millis(2));
        let limits = Limits { quantum_ns, ..Limits::default() };
        Function::new(entry, 0, &limits, &clock)
    }

    /// One that is known for long.
    fn trusted(quantum_ns: u64) -> Function {
        let mut function = function(quantum_ns);
        (0..PROBATION_CALLS + SUSPICIOUS).for_each(|_| function.was_short());
        function
    }

    fn is_watched(function: &Function) -> bool {
        function.first_slice() < function.coarse_cycles
    }

    /// Short calls until a first slice is coarse again.
    fn short_calls_until_trusted(function: &mut Function) -> u32 {
        let mut calls = 0;
        while is_watched(function) {
            function.was_short();
            calls += 1;
        }
        calls
    }

    #[test]
    fn a_new_function_is_watched_until_so_many_calls_were_short() {
        let mut new = function(QUANTUM_NS);
        assert!(is_watched(&new), "at its first call");
        assert_eq!(new.first_slice(), new.overrun_cycles, "which may find its code on no page yet");
        assert_eq!(short_calls_until_trusted(&mut new), PROBATION_CALLS);
        new.overran_unseen();
        assert!(is_watched(&new), "it is not known for long");
        for offence in [Function::overran, Function::overran_unseen] {
            let mut new = function(QUANTUM_NS);
            (0..PROBATION_CALLS / 2).for_each(|_| new.was_short());
            offence(&mut new);
            assert_eq!(new.first_slice(), new.fine_cycles, "it had its chance");
            assert_eq!(short_calls_until_trusted(&mut new), FINE_CALLS);
        }
    }

    /// Else one whose calls take a little more than its quantum would be watched for ever, and pay for an alarm in each.
    #[test]
    fn a_call_that_is_over_soon_after_its_alarm_was_short() {
        let mut new = function(QUANTUM_NS);
        (0..PROBATION_CALLS).for_each(|_| new.was_seen(QUANTUM_NS + OVERRUN_NS - 1));
        assert!(!is_watched(&new));
        new.was_seen(QUANTUM_NS + OVERRUN_NS);
        assert_eq!(short_calls_until_trusted(&mut new), FINE_CALLS);
    }

    #[test]
    fn two_overruns_that_are_close_have_the_next_calls_watched() {
        let mut function = trusted(QUANTUM_NS);
        assert!(!is_watched(&function));
        function.overran_unseen();
        assert!(!is_watched(&function), "one may be an accident");
        (0..SUSPICIOUS - 1).for_each(|_| function.was_short());
        function.overran_unseen();
        assert!(is_watched(&function));
        assert_eq!(short_calls_until_trusted(&mut function), FINE_CALLS);
        // It is not forgotten yet.
        function.overran_unseen();
        assert!(is_watched(&function));
    }

    #[test]
    fn overruns_that_are_rare_are_forgotten() {
        let mut function = trusted(QUANTUM_NS);
        for _ in 0..10 {
            function.overran_unseen();
            assert!(!is_watched(&function));
            (0..SUSPICIOUS).for_each(|_| function.was_short());
        }
    }

    #[test]
    fn what_an_alarm_finds_is_no_accident() {
        let mut function = trusted(QUANTUM_NS);
        function.overran();
        assert!(is_watched(&function));
        assert_eq!(short_calls_until_trusted(&mut function), FINE_CALLS);
        (0..SUSPICIOUS).for_each(|_| function.was_short());
        function.overran_unseen();
        assert!(!is_watched(&function), "all is forgotten");
    }

    #[test]
    fn an_interruption_is_no_overrun() {
        let function = function(QUANTUM_NS);
        assert!(!function.has_overrun(QUANTUM_NS + OVERRUN_NS - 1));
        assert!(function.has_overrun(QUANTUM_NS + OVERRUN_NS));
        assert!(function.is_short(function.fine_cycles) && !function.is_short(function.coarse_cycles));
    }

    #[test]
    fn a_quantum_longer_than_a_coarse_slice_is_the_first_slice() {
        let function = trusted(2 * COARSE_NS);
        assert_eq!(function.coarse_cycles, function.fine_cycles);
        assert!(function.is_short(function.first_slice()), "an alarm finds it before");
        let new = self::function(2 * COARSE_NS);
        assert_eq!(new.first_slice(), new.fine_cycles);
    }
}
