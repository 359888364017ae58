//! Whether a worker that serves still lives: one that is stopped, or stuck where no signal reaches it, does not end, and its process descriptor says nothing.
//!
//! A worker that has calls in its hands and completes none for a while is asked for a sign of life. It answers between two slices of a call, so an answer that does
//! not come in time says that it does not run. One without calls is not asked, but for those of attached hosts, which the node does not see.

use std::time::{Duration, Instant};

use microfaas_control::Policy;

use crate::lane::Lane;
use crate::node::Shared;

/// What one worker has shown of late.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// How far it had come with its completions.
    position: u64,
    /// When it was seen to get on, or was asked.
    since: Instant,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { position: 0, since: Instant::now() }
    }

    /// Whether the worker is to be asked now; then the time begins anew.
    pub(crate) fn is_faint(&mut self, lane: &Lane, has_guests: bool, heartbeat: Duration) -> bool {
        let (now, position) = (Instant::now(), lane.position());
        if position != self.position || !has_guests && lane.in_flight().next().is_none() {
            (self.position, self.since) = (position, now);
        }
        let is_faint = now.duration_since(self.since) >= heartbeat;
        if is_faint {
            self.since = now;
        }
        is_faint
    }
}

impl Shared {
    /// How long a worker may take to answer: a call of the policy `kill` has the core for its whole budget.
    pub(crate) fn answer_within(&self, heartbeat: Duration) -> Duration {
        let catalog = self.catalog.load();
        let kills = catalog.functions.iter().filter(|info| info.limits.policy == Policy::Kill);
        let longest = kills.map(|info| info.limits.budget_ns).max().unwrap_or(0);
        heartbeat.saturating_add(Duration::from_nanos(longest))
    }
}
