//! Whether a worker that serves still lives: one that is stopped, or stuck where no signal reaches it, does not end, and its process descriptor says nothing.
//!
//! A worker that has calls in its hands and completes none for a while is asked for a sign of life. It answers between two slices of a call, so an answer that does
//! not come in time says that it does not run. One without calls is not asked, but for those of attached hosts, which the node does not see.

use std::time::{Duration, Instant};

use microfaas_control::Policy;

use crate::lane::Lane;
use crate::node::Shared;

/// Longer than anybody waits, and still a time that can be added to another.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(86_400);

/// What one worker has shown of late.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// How far it had come with its completions.
    position: u64,
    /// When it was seen to get on, or was asked.
    since: Instant,
}

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It has completed calls.
    Strong,
    /// Nothing that says anything.
    Weak,
    /// Nothing for so long that it is to be asked now.
    Faint,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { position: 0, since: Instant::now() }
    }

    /// Looks what the worker has done since the last look.
    pub(crate) fn feel(&mut self, lane: &Lane, has_guests: bool, heartbeat: Duration) -> Sign {
        let (now, position) = (Instant::now(), lane.position());
        if position != self.position {
            (self.position, self.since) = (position, now);
            return Sign::Strong;
        }
        if !has_guests && lane.in_flight().next().is_none() {
            self.since = now;
        }
        if now.duration_since(self.since) < heartbeat {
            return Sign::Weak;
        }
        self.since = now;
        Sign::Faint
    }
}

impl Shared {
    /// How long a worker may take to answer: it hears its node between slices, and may be in one, give another call its first and a third one its next before it looks. A
    /// call of the policy `kill` has the core for its whole budget.
    pub(crate) fn answer_within(&self, heartbeat: Duration) -> Duration {
        let catalog = self.catalog.load();
        let slices = catalog.functions.iter().map(|info| match info.limits.policy {
            Policy::Kill => info.limits.budget_ns,
            _ => info.limits.quantum_ns,
        });
        let slices = Duration::from_nanos(slices.max().unwrap_or(0).saturating_mul(3));
        heartbeat.saturating_add(slices).min(FOR_EVER)
    }
}
