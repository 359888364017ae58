//! A worker process that is up: what the supervisor holds of it, whether it is in a place and takes calls, or is a spare.

use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_sys::process::Process;

use crate::command::{Asker, Heard, Question, Talk};
use crate::lane::Lane;
use crate::node::Shared;
use crate::pulse::{Pulse, Sign};
use crate::seat::Seat;
use crate::shelf::Shelf;

/// How long one that is told to end may take over the calls that it has begun.
const RETIRE_WITHIN: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) process: Process,
    talk: Talk,
    pub(crate) lane: Arc<Lane>,
    pub(crate) shelf: Shelf,
    pulse: Pulse,
    /// It was told to end when it has done what it has begun, for which it has until then.
    retire_by: Option<Instant>,
}

impl Live {
    pub(crate) fn new(process: Process, talk: Talk, lane: Arc<Lane>, shelf: Shelf) -> Self {
        Self { process, talk, lane, shelf, pulse: Pulse::new(), retire_by: None }
    }

    /// It is a spare no more: what it does from now on counts for this place. False where somebody knows its lane already, which cannot be.
    pub(crate) fn takes(&mut self, index: u32, seat: &Seat) -> bool {
        let Some(lane) = Arc::get_mut(&mut self.lane) else { return false };
        lane.belongs_to(index, &seat.load, &seat.counters);
        self.talk.speaks_as(seat.info().generation);
        true
    }

    /// Asks it, now or when it is its turn.
    pub(crate) fn ask(&mut self, shared: &Shared, question: Question, asker: Asker) {
        self.talk.ask(shared, &self.lane, question, asker);
    }

    /// Tells it which functions are banned.
    pub(crate) fn ban(&mut self, shared: &Shared, banned: Vec<u32>) {
        self.talk.ban(shared, &self.lane, banned);
    }

    /// Tells it to end when it has done what it has begun.
    pub(crate) fn retire(&mut self, shared: &Shared) {
        self.retire_by = Some(Instant::now() + RETIRE_WITHIN);
        self.talk.retire(shared, &self.lane);
    }

    /// Whether it was told to end.
    pub(crate) fn is_retiring(&self) -> bool {
        self.retire_by.is_some()
    }

    /// Whether it was told to end and has had its time for that.
    pub(crate) fn outstays(&self) -> bool {
        self.retire_by.is_some_and(|time| time <= Instant::now())
    }

    #[cfg(test)]
    pub(crate) fn is_to_end_now(&mut self) {
        self.retire_by = Some(Instant::now());
    }

    /// When it has to have answered, or ended.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.answer_by().into_iter().chain(self.retire_by).min()
    }

    /// Takes one packet that it has sent. See [`Talk::hear`].
    pub(crate) fn hear(&mut self) -> Result<Heard, String> {
        self.talk.hear(&self.lane)
    }

    /// Asks it for a sign of life if it has shown none for a while. `always`: also while the node knows of no call that it has.
    pub(crate) fn feel_pulse(&mut self, shared: &Shared, always: bool, heartbeat: Duration) {
        match self.pulse.feel(&self.lane, always, heartbeat) {
            Sign::Weak => {}
            Sign::Strong => self.talk.gets_on(|| shared.answer_within(heartbeat)),
            Sign::Faint => self.talk.ping(shared, &self.lane, heartbeat),
        }
    }

    /// Why it could not be asked a question of the supervisor's own; it is of no use then.
    pub(crate) fn unsent(&mut self) -> Option<String> {
        self.talk.unsent()
    }

    /// When it has to have answered.
    pub(crate) fn answer_by(&self) -> Option<Instant> {
        self.talk.answer_by()
    }

    /// It has until then at least to answer, or to end.
    pub(crate) fn has_time_until(&mut self, time: Instant) {
        self.retire_by = self.retire_by.map(|until| until.max(time));
        self.talk.has_time_until(time);
    }

    /// Whether it has not answered in time.
    pub(crate) fn is_silent(&self) -> bool {
        self.answer_by().is_some_and(|time| time <= Instant::now())
    }

    /// What it was asked last, in a word.
    pub(crate) fn step(&self) -> &'static str {
        self.talk.step()
    }

    /// Its control socket.
    pub(crate) fn control(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.talk)
    }
}
