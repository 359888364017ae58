//! What the supervisor does because time has passed, and when it has to be awake for that.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use microfaas_lane::host::Ticket;
use microfaas_sys::clock::monotonic_ns;

use super::{Place, Supervisor};
use crate::call::nanoseconds;
use crate::lane::Lane;
use crate::metrics::RestartCause;
use crate::pulse::FOR_EVER;
use crate::watch;

impl Supervisor {
    /// Longest sleep; `None` where only what happens counts.
    pub(super) fn timeout(&self, deadline_ns: u64) -> Option<Duration> {
        let calls = (deadline_ns != u64::MAX)
            .then(|| Duration::from_nanos(deadline_ns.saturating_sub(monotonic_ns())));
        let now = Instant::now();
        let until = |time: Instant| time.saturating_duration_since(now);
        let places = self.places.iter().filter_map(|place| match place {
            Place::Launching(launch) => Some(launch.answer_by),
            Place::Pausing(until) => Some(*until),
            Place::Serving { live, .. } => live.due(),
        });
        let trial = self.trial.as_ref().map(|(_, launch)| launch.answer_by);
        let spares = self.spares.wakes_at(self.is_settled());
        let insurance = self.shared.look_within();
        let is_asked = self.shared.bulletin.has_guests() || self.spares.any();
        let pulses = is_asked.then_some(self.patience.heartbeat.min(FOR_EVER));
        let nobody = !self.places.iter().any(|place| matches!(place, Place::Serving { .. }));
        let patience = self.rollout.patience().filter(|_| nobody);
        let times = places.chain(trial).chain(spares).map(until);
        calls.into_iter().chain(times).chain(insurance).chain(pulses).chain(patience).min()
    }

    /// Where the whole node has stood still, whoever should have answered meanwhile has time anew.
    pub(super) fn notice_lapse(&mut self) {
        let now = Instant::now();
        if !self.lapse.wakes(now) {
            return;
        }
        tracing::warn!(
            "the supervisor was stopped for a while, and so may all others have been: none is judged for it"
        );
        let until = self.lapse.until(now);
        self.shared.bulletin.forgive(until.saturating_duration_since(now));
        for place in &mut self.places {
            match place {
                Place::Launching(launch) => launch.answer_by = launch.answer_by.max(until),
                Place::Serving { live, .. } => live.has_time_until(until),
                Place::Pausing(_) => {}
            }
        }
        if let Some((_, launch)) = &mut self.trial {
            launch.answer_by = launch.answer_by.max(until);
        }
        self.spares.have_time_until(until);
    }

    /// Whether no place is about to be filled: then there is time for other things.
    pub(super) fn is_settled(&self) -> bool {
        self.started.is_none()
            && self.places.iter().all(|place| match place {
                Place::Launching(_) => false,
                Place::Serving { open, .. } => *open,
                Place::Pausing(_) => true,
            })
    }

    /// Wakes the owners of overdue calls, kills workers that hang, and says when the next call is due.
    pub(super) fn watch_calls(&mut self) -> u64 {
        let mercy = self.lapse.grace(Instant::now());
        let mercy_ns = mercy.map(|left| monotonic_ns().saturating_add(nanoseconds(left)));
        watch::watch(&self.shared.hub, || self.next_due(mercy_ns))
    }

    /// `mercy_ns`: nobody is judged before.
    fn next_due(&self, mercy_ns: Option<u64>) -> u64 {
        let mut next = mercy_ns.unwrap_or(u64::MAX);
        for place in &self.places {
            let Place::Serving { live, .. } = place else { continue };
            let lane = &live.lane;
            if lane.is_shut() {
                // Found lying by a caller.
                self.shared.seats[lane.worker as usize].tally.doom(RestartCause::Violation);
                let _ = live.process.kill();
                lane.hub.orphans.add(lane);
                continue;
            }
            let look = watch::look(lane, self.patience.stall_ns);
            next = next.min(look.next_ns);
            // While it loads a module, and until it has seen to what came meanwhile, it has an excuse.
            let grace = Duration::from_nanos(self.patience.stall_ns);
            // One that is told to end lets calls lie that have not started; that it lives, it says when it is asked.
            let is_retiring = live.is_retiring() && !live.outstays();
            let is_excused = mercy_ns.is_some() || is_retiring || live.shelf.excuses(grace);
            if let Some(ticket) = look.hung.filter(|_| !is_excused) {
                // It may take the kernel a while to take it apart: that is said once.
                if self.shared.seats[lane.worker as usize].tally.doom(RestartCause::Hung) {
                    self.say_that_it_hangs(lane, ticket);
                }
                let _ = live.process.kill();
            }
        }
        next
    }

    fn say_that_it_hangs(&self, lane: &Lane, ticket @ Ticket { slot, generation }: Ticket) {
        let number = lane.note(ticket).function.load(Ordering::Relaxed);
        let catalog = self.shared.catalog.load();
        let (worker, function) = (lane.worker, catalog.owners.get(number as usize).map(String::as_str));
        let request_id = lane.try_lock().and_then(|mut reader| lane.request_id(&mut reader, ticket));
        tracing::warn!(
            worker,
            function,
            slot,
            generation,
            request_id,
            "worker hangs in a call, it will be replaced"
        );
    }

    /// Asks workers and spares for a sign of life that have shown none for a while.
    pub(super) fn feel_pulses(&mut self) {
        let heartbeat = self.patience.heartbeat;
        let has_guests = self.shared.bulletin.has_guests();
        for place in &mut self.places {
            if let Place::Serving { live, .. } = place {
                live.feel_pulse(&self.shared, has_guests, heartbeat);
            }
        }
        for live in self.spares.ready() {
            live.feel_pulse(&self.shared, true, heartbeat);
        }
    }

    /// Does what is due: replaces who has not answered in time, and fills places.
    pub(super) fn look_at_clocks(&mut self) {
        let now = Instant::now();
        for index in 0..self.places.len() {
            match &self.places[index] {
                _ if self.failure.is_some() => return,
                Place::Launching(launch) if launch.answer_by <= now => {
                    let error = launch.silent();
                    self.launch_failed(index, error);
                }
                Place::Serving { live, .. } if live.is_silent() => {
                    let step = live.step();
                    tracing::warn!(worker = index, step, "worker does not answer, it will be replaced");
                    self.shared.seats[index].tally.doom(RestartCause::Silent);
                    let _ = live.process.kill();
                    self.ended(index);
                }
                Place::Serving { live, .. } if live.outstays() => {
                    let _ = live.process.kill();
                    tracing::warn!(worker = index, "worker that was told to end does not, it is killed");
                    self.ended(index);
                }
                Place::Pausing(_) => self.fill_when_due(index, now),
                _ => {}
            }
        }
    }
}
