//! A node whose one worker has the same function under several names with several limits, so that everything is compared within one process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use microfaas_node::{
    BUDGET_NS_MAX, Call, CallError, Completion, FunctionConfig, FunctionHandle, Limits, Node, Policy,
    Request, Status,
};
use microfaas_sys::clock::CycleClock;
use sha2::{Digest, Sha512};

use crate::bench::stopped;
use crate::failure::Failure;

/// More hashes than any budget lasts for: the function never returns.
pub(super) const ENDLESS: u32 = u32::MAX;
/// Slots, and calls that may be suspended: an open loop must not be held back by either.
const SLOTS: u32 = 2048;
const SUSPENDED_MAX: u32 = 256;
/// As each of them has a heap of its own, a small one.
const ARENA_BYTES: u64 = 1 << 20;

/// A name of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Name {
    /// Quantum and budget of an hour: the timer is armed once, for then, and no alarm comes.
    Off,
    /// Quantum of 20 us; a budget that nothing spends, as those of the next two.
    Quantum20us,
    Quantum100us,
    Quantum1ms,
    /// As the one before, of which it stays known that some calls overrun, whatever else is measured between: a function in use is called all the time.
    Mixed100us,
    /// Quantum of 100 us, budget of 10 ms.
    Budget10ms,
    /// Ended at 100 us, by the policy `kill`.
    Kill100us,
    /// Quantum of 100 us, budget of 1 ms.
    Budget1ms,
    /// Ended at 1 ms, by the policy `kill`.
    Kill1ms,
}

/// The names' limits in order: quantum, budget, policy. In nanoseconds.
const LIMITS: [(u64, u64, Policy); 9] = [
    (BUDGET_NS_MAX, BUDGET_NS_MAX, Policy::Share),
    (20_000, BUDGET_NS_MAX, Policy::Share),
    (100_000, BUDGET_NS_MAX, Policy::Share),
    (1_000_000, BUDGET_NS_MAX, Policy::Share),
    (100_000, BUDGET_NS_MAX, Policy::Share),
    (100_000, 10_000_000, Policy::Share),
    (100_000, 100_000, Policy::Kill),
    (100_000, 1_000_000, Policy::Share),
    (1_000_000, 1_000_000, Policy::Kill),
];

impl Name {
    pub(super) fn quantum_ns(self) -> u64 {
        LIMITS[self as usize].0
    }

    pub(super) fn budget_ns(self) -> u64 {
        LIMITS[self as usize].1
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) node: Node,
    pub(super) clock: CycleClock,
    functions: Vec<FunctionHandle>,
    /// The right answers, by count.
    answers: RefCell<HashMap<u32, [u8; 64]>>,
}

impl Subject {
    /// Starts the node.
    pub(super) fn start(modules: PathBuf) -> Result<Self, Failure> {
        let names: Vec<String> = (0..LIMITS.len()).map(|i| format!("hash_{i}")).collect();
        let builder = Node::builder().modules(modules).workers(1).slots(SLOTS, 0);
        let builder = builder.suspended_max(SUSPENDED_MAX).arena_bytes(ARENA_BYTES);
        let builder = names.iter().zip(LIMITS).fold(builder, |builder, (name, limits)| {
            let (quantum_ns, budget_ns, policy) = limits;
            let limits = Limits { quantum_ns, budget_ns, policy, ..Limits::default() };
            // The budget ends a call here, and nothing else.
            builder.function(name, FunctionConfig::default().limits(limits).deadline(Duration::MAX))
        });
        let node = builder.start()?;
        let functions = names.iter().map(|name| node.function(name)).collect::<Result<_, _>>();
        let functions = functions.map_err(stopped)?;
        let clock = CycleClock::calibrate(Duration::from_millis(20));
        Ok(Self { node, clock, functions, answers: RefCell::default() })
    }

    /// Submits a call of so many hashes.
    pub(super) fn submit(&self, name: Name, count: u32) -> Result<Call, Failure> {
        self.try_submit(name, count).map_err(stopped)
    }

    /// As [`submit`](Self::submit), for those who can wait for a slot.
    pub(super) fn try_submit(&self, name: Name, count: u32) -> Result<Call, CallError> {
        let mut body = [0; 68];
        body[..4].copy_from_slice(&count.to_le_bytes());
        self.node.submit(self.functions[name as usize], Request::new(&body))
    }

    /// A call that must be right.
    pub(super) fn hash(&self, name: Name, count: u32, completion: &mut Completion) -> Result<(), Failure> {
        self.submit(name, count)?.wait_into(completion);
        self.check(completion, count)
    }

    /// Finds the right answer for a count out.
    pub(super) fn know(&self, count: u32) {
        self.right(count);
    }

    fn right(&self, count: u32) -> [u8; 64] {
        let hash = || (0..count).fold([0; 64], |text, _| Sha512::digest(text).into());
        *self.answers.borrow_mut().entry(count).or_insert_with(hash)
    }

    /// Whether an answer is the right one.
    pub(super) fn check(&self, completion: &Completion, count: u32) -> Result<(), Failure> {
        let right = self.right(count);
        if completion.status == Status::Ok && completion.body == right.as_slice() {
            return Ok(());
        }
        let Completion { status, body, detail, .. } = completion;
        Err(stopped(format!("a wrong answer: {status:?}, {} bytes for {count} hashes; {detail}", body.len())))
    }

    /// A call without end, which must be ended. Returns how many nanoseconds past its budget.
    pub(super) fn kill(&self, name: Name, completion: &mut Completion) -> Result<f64, Failure> {
        self.submit(name, ENDLESS)?.wait_into(completion);
        check_killed(completion)?;
        Ok(float(completion.cpu_ns) - float(name.budget_ns()))
    }

    /// Hashes in a time, when nothing disturbs.
    pub(super) fn hashes_in(&self, time: Duration) -> Result<u32, Failure> {
        const COUNT: u32 = 20_000;
        let mut completion = Completion::default();
        let mut best = f64::MAX;
        for _ in 0..10 {
            self.hash(Name::Off, COUNT, &mut completion)?;
            best = best.min(float(completion.cpu_ns));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
        let count = (time.as_secs_f64() * 1e9 * f64::from(COUNT) / best) as u32;
        Ok(count.clamp(1, ENDLESS - 1))
    }
}

/// Whether a call without end was ended.
pub(super) fn check_killed(completion: &Completion) -> Result<(), Failure> {
    if completion.status == Status::Timeout {
        return Ok(());
    }
    Err(stopped(format!("an endless call ended {:?}: {}", completion.status, completion.detail)))
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 ns")]
pub(super) fn float(ns: u64) -> f64 {
    ns as f64
}
