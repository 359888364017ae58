//! Calls that were taken off the rings and have not started: a queue for each function of each lane, served by least use.
//!
//! Two levels of [turns](crate::turns): first of the lanes, then of the functions of a lane that is next. So a host gains nothing by calling many functions, and one
//! function that is flooded does not hold up another. With `k` lanes and `m` functions of a lane that want the core all the time, each function gets 1/(k·m) of it,
//! but for the longest slices that it and the others have at once. A queue keeps the order of submission. Suspended calls are their functions' too: who is
//! next either starts a call or resumes one.
//!
//! A call here is QUEUED still: its host takes it back, moves it and lets it expire as in the ring, since claiming comes later. A function that can do neither for now
//! (another call has the state that it needs, every context is taken) is [parked](Backlog::park) and asks for nothing until somebody [releases](Backlog::release) it.
//!
//! Memory is taken when a lane is added: as many places for calls as it has slots, since no honest host has more on their way.

use microfaas_lane::worker::Submission;
use microfaas_sys::futex;

use crate::queues::Queues;
use crate::turns::Turns;

/// See the module.
#[derive(Debug)]
pub struct Backlog {
    /// By the numbers of the lanes.
    lanes: Vec<Option<Queues>>,
    turns: Turns,
    /// Functions that are parked, over all lanes.
    parked: usize,
}

/// Whose turn it is: a function of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The lane.
    pub lane: usize,
    /// Where the function's queue is in it.
    queue: usize,
}

/// Who wants the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Nobody.
    Nobody,
    /// One function of one lane.
    One(usize, u32),
    /// More than one.
    Several,
}

/// A host has more calls on their way than slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Default for Backlog {
    fn default() -> Self {
        Self { lanes: Vec::new(), turns: Turns::with_capacity(futex::WAIT_ANY_MAX), parked: 0 }
    }
}

impl Backlog {
    /// A lane comes, of so many slots, at a worker that has so many contexts.
    pub fn add_lane(&mut self, number: usize, slots: u32, contexts: usize) {
        if number >= self.lanes.len() {
            self.lanes.resize_with(number + 1, || None);
        }
        self.lanes[number] = Some(Queues::new(slots as usize, contexts));
    }

    /// A lane goes, with everything of it that waits.
    pub fn remove_lane(&mut self, number: usize) {
        if let Some(queues) = self.lanes.get_mut(number).and_then(Option::take) {
            self.parked -= queues.parked();
            self.turns.remove(number);
        }
    }

    /// Whether nobody wants the core. Some may be parked.
    #[inline]
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// Who wants the core.
    #[inline]
    pub fn want(&self) -> Want {
        match self.turns.first() {
            None => Want::Nobody,
            Some(lane) if self.turns.len() == 1 => match self.lanes[lane].as_ref().and_then(Queues::only) {
                Some(function) => Want::One(lane, function),
                None => Want::Several,
            },
            Some(_) => Want::Several,
        }
    }

    /// A call that was taken off the ring of a lane waits, behind others of its function.
    ///
    /// # Errors
    /// [`Full`].
    #[inline]
    pub fn push(&mut self, lane: usize, submission: &Submission) -> Result<(), Full> {
        self.with(lane, |queues| queues.push(submission))
    }

    /// Does something to a lane that may make it want the core.
    #[inline]
    fn with<R>(&mut self, lane: usize, act: impl FnOnce(&mut Queues) -> R) -> R {
        let queues = self.lanes[lane].as_mut().expect("a lane has its queues as long as it is there");
        let (wanted, parked) = (queues.wants(), queues.parked());
        let result = act(queues);
        self.parked = self.parked + queues.parked() - parked;
        if !wanted && queues.wants() {
            self.turns.join(lane, &mut queues.account);
        }
        result
    }

    fn of(&self, lane: usize) -> &Queues {
        self.lanes[lane].as_ref().expect("whose turn it is has its queues")
    }

    fn of_mut(&mut self, lane: usize) -> &mut Queues {
        self.lanes[lane].as_mut().expect("whose turn it is has its queues")
    }

    /// Whose turn it is. Then one of: [`used`](Self::used), [`park`](Self::park).
    #[inline]
    pub fn turn(&mut self) -> Option<Turn> {
        let lane = self.turns.turn()?;
        let queue = self.of_mut(lane).turn()?;
        Some(Turn { lane, queue })
    }

    /// The function's number.
    #[inline]
    #[must_use]
    pub fn function(&self, turn: Turn) -> u32 {
        self.of(turn.lane).function(turn.queue)
    }

    /// The call that it would start.
    #[inline]
    #[must_use]
    pub fn first_call(&self, turn: Turn) -> Option<&Submission> {
        self.of(turn.lane).first_call(turn.queue)
    }

    /// Its suspended calls.
    #[inline]
    #[must_use]
    pub fn suspended(&self, turn: Turn) -> usize {
        self.of(turn.lane).suspended(turn.queue)
    }

    /// Suspended calls of its lane.
    #[inline]
    #[must_use]
    pub fn suspended_of_lane(&self, turn: Turn) -> usize {
        self.of(turn.lane).suspended_in_all()
    }

    /// Calls of it that were started since one was resumed.
    #[inline]
    #[must_use]
    pub fn started(&self, turn: Turn) -> u32 {
        self.of(turn.lane).started(turn.queue)
    }

    /// Whether anybody else wants the core, or another call of the same function that could `start`.
    #[inline]
    #[must_use]
    pub fn has_rival(&self, turn: Turn, start: bool) -> bool {
        let queues = self.of(turn.lane);
        self.turns.len() > 1 || queues.wanting() > 1 || start && queues.has_second(turn.queue)
    }

    /// It starts its first call: takes it out.
    #[inline]
    pub fn pop(&mut self, turn: Turn) -> Option<Submission> {
        self.of_mut(turn.lane).pop(turn.queue)
    }

    /// It resumes a call.
    pub fn resumes(&mut self, turn: Turn) {
        self.of_mut(turn.lane).resumes(turn.queue);
    }

    /// It has used so much of the core. In cycles.
    #[inline]
    pub fn used(&mut self, turn: Turn, used: u64) {
        let Some(queues) = self.lanes[turn.lane].as_mut() else { return };
        queues.used(turn.queue, used);
        let wants_more = queues.wants();
        self.turns.used(&mut queues.account, used, wants_more);
    }

    /// A call of a function used so much while nobody wanted the core.
    #[cold]
    pub fn used_alone(&mut self, lane: usize, function: u32, used: u64) {
        let Some(queues) = self.lanes[lane].as_mut() else { return };
        queues.used_alone(function, used);
        if !queues.wants() {
            self.turns.used_alone(&mut queues.account, used);
        }
    }

    /// It can neither start a call nor resume one.
    #[cold]
    pub fn park(&mut self, turn: Turn) {
        self.of_mut(turn.lane).park(turn.queue);
        self.parked += 1;
        if !self.of(turn.lane).wants() {
            self.turns.leave();
        }
    }

    /// Whether any are parked.
    #[inline]
    #[must_use]
    pub fn has_parked(&self) -> bool {
        self.parked > 0
    }

    /// Something has changed: those that are parked want the core again.
    #[cold]
    pub fn release(&mut self) {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].as_ref().is_some_and(|queues| queues.parked() > 0) {
                self.with(lane, Queues::release);
            }
        }
    }

    /// A call of this function was suspended for the first time.
    #[cold]
    pub fn call_suspended(&mut self, lane: usize, function: u32) {
        self.with(lane, |queues| queues.call_suspended(function));
    }

    /// A suspended call of the one whose turn it is, is over.
    #[cold]
    pub fn call_over(&mut self, turn: Turn) {
        self.of_mut(turn.lane).call_over(turn.queue);
    }

    /// Whether calls of this function wait, by any lane.
    #[cold]
    #[must_use]
    pub fn has_calls_of(&self, function: u32) -> bool {
        self.lanes.iter().flatten().any(|queues| queues.has_calls_of(function))
    }

    /// Takes a call out of its queue, whoever's turn it is: one of a lane and function that are wanted.
    ///
    /// # Cost
    /// A look at every queue.
    #[cold]
    pub fn take_out(&mut self, is_wanted: impl Fn(usize, u32) -> bool) -> Option<(usize, Submission)> {
        for (lane, queues) in self.lanes.iter_mut().enumerate() {
            let Some(queues) = queues else { continue };
            let (wanted, parked) = (queues.wants(), queues.parked());
            let Some(submission) = queues.take_out(|function| is_wanted(lane, function)) else { continue };
            self.parked -= parked - queues.parked();
            if wanted && !queues.wants() {
                self.turns.remove(lane);
            }
            return Some((lane, submission));
        }
        None
    }

    /// How far the ring of a lane was found to hold calls of one function only: the function, and the position of the next submission to look at.
    pub fn seen(&mut self, lane: usize) -> Option<&mut (u32, u64)> {
        self.lanes[lane].as_mut().map(|queues| &mut queues.seen)
    }
}

#[cfg(test)]
#[path = "backlog_tests.rs"]
mod tests;
