//! Who is served: calls right off the rings while that keeps nobody waiting, else by turns from the backlog.
//!
//! The worker goes round by round. A round is [`BATCH`] calls, or [`ROUND_NS`] of calls where those take longer; then it looks what else there is to do.
//!
//! **Off the rings.** While nothing waits elsewhere, calls are run as they come, lane by lane. A round that ends with calls left in the rings has the worker look at those,
//! each once: while they are all of one function of one lane there is nothing to choose, and it goes on. So a worker that has one function to serve, or is not behind,
//! never does more than that.
//!
//! **By turns.** Else all that the rings hold goes into the [backlog](crate::backlog), and those are served that have used least of the core: of the lanes, then of the functions
//! of a lane. Every round begins by taking in what has come. This goes on while calls are suspended, or more than one function wants the core.
//! What is promised: with `k` lanes and `m` functions of a lane that want the core all the time, each has 1/(k·m) of it, whatever the others ask for. A call of a
//! function that has had less than that waits for the slice and the round under way, and for nothing else; so its function, where its host asks for one call at a time,
//! gets one call in for each slice of the others.
//!
//! **Within a function** calls start in the order of submission. While some are suspended, up to [`BATCH`] others start for each slice that one of those gets: short calls
//! pass long ones, and long ones come to their end.
//!
//! **Contexts.** A call can start only in a free one, and suspended calls keep theirs. A function's next call starts while it has fewer suspended ones than there are free
//! contexts: so one function has half of them at most (17 suspended calls where there may be 32), two have three quarters, and there is one left for the next function that comes, but where
//! many flood the worker with long calls at the same time. Of several lanes, one that has suspended calls leaves an eighth of the contexts to those that have none.
//! A worker that may not suspend any calls runs each to its end.

use std::io;

use microfaas_lane::worker::Submission;
use microfaas_sys::clock::cycles;

use super::{BATCH, Worker};
use crate::backlog::{Turn, Want};
use crate::modules::Standing;

/// Longest round, in nanoseconds of calls: as short as a slice may be.
pub(super) const ROUND_NS: u64 = 20_000;
/// What is counted for a call beside the time in its function, in cycles: so that calls that are refused count for something.
const CALL_CYCLES: u64 = 200;

/// What a function does with its turn.
enum Step {
    /// It starts its first call.
    Start,
    /// It goes on with the suspended call that has waited longest.
    Resume,
    /// It can do nothing until something changes.
    Park,
}

impl Worker {
    /// Serves for a round. True where there was anything to do.
    #[inline]
    pub(super) fn round(&mut self) -> io::Result<bool> {
        if self.stirred {
            self.stirred = false;
            if self.backlog.has_parked() {
                self.backlog.release();
            }
        }
        let is_choice = match self.backlog.want() {
            Want::Nobody if !self.is_behind => return self.run_rings(),
            Want::Nobody => self.rings_differ(None),
            Want::One(lane, function) => {
                self.scheduler.suspended() > 0 || self.rings_differ(Some((lane, function)))
            }
            Want::Several => true,
        };
        if is_choice {
            self.take_in()?;
        } else if self.backlog.is_idle() {
            return self.run_rings();
        }
        self.run_backlog()
    }

    /// Runs calls right off the rings. True where there were any.
    #[inline]
    fn run_rings(&mut self) -> io::Result<bool> {
        (self.is_behind, self.lanes.has_rival) = (false, false);
        let began = self.scheduler.spent();
        let (mut spent, mut left) = (began, BATCH);
        let end = self.lanes.end();
        let first = if self.turn < end { self.turn } else { 0 };
        for index in (first..end).chain(0..first) {
            while let Some(submission) = self.pop(index)? {
                self.take(index, &submission)?;
                left -= 1;
                let now = self.scheduler.spent();
                if now - spent >= self.round_cycles {
                    self.backlog.used_alone(index, submission.function, now - spent);
                }
                spent = now;
                let is_over = left == 0 || spent - began >= self.round_cycles;
                if is_over || self.scheduler.suspended() > 0 || !self.backlog.is_idle() {
                    self.note_suspended(0);
                    self.is_behind = true;
                    // The others come before it does again.
                    self.turn = index + 1;
                    self.announce(index);
                    return Ok(true);
                }
            }
            self.announce(index);
            if self.stirred {
                // A lane was cut. Who waited for what its calls had comes before the rest.
                return Ok(true);
            }
        }
        Ok(left < BATCH)
    }

    /// What comes next may take long, and the host of the calls that are over may sleep.
    #[inline]
    fn announce(&mut self, index: usize) {
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.announce();
        }
    }

    /// The next submission of a lane. A lane on which there is something else is cut.
    #[inline]
    fn pop(&mut self, index: usize) -> io::Result<Option<Submission>> {
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(None) };
        match lane.end.pop() {
            Ok(submission) => Ok(submission),
            Err(fault) => {
                let reason = format!("a submission that cannot be one: {:?}", fault.submission);
                self.fault(index, &reason)?;
                Ok(None)
            }
        }
    }

    /// Whether the rings hold calls of more than one function of one lane: of `sole`, where that has others already.
    fn rings_differ(&mut self, mut sole: Option<(usize, u32)>) -> bool {
        for index in 0..self.lanes.end() {
            let Some(lane) = self.lanes.get(index) else { continue };
            let Some(function) = lane.end.next_function() else { continue };
            if sole.is_some_and(|sole| sole != (index, function)) {
                return true;
            }
            sole = Some((index, function));
            let Some(seen) = self.backlog.seen(index) else { continue };
            // What was looked at before was all of one function up to there.
            let from = if seen.0 == function { seen.1 } else { 0 };
            let (until, differs) = lane.end.run_of(function, from);
            *seen = (function, until);
            if differs {
                return true;
            }
        }
        false
    }

    /// Takes all that the rings hold into the backlog.
    #[cold]
    fn take_in(&mut self) -> io::Result<()> {
        for index in 0..self.lanes.end() {
            while let Some(mut submission) = self.pop(index)? {
                match self.standing(index, submission.function) {
                    Standing::Moved => submission = self.modules.successor(&submission),
                    // What hosts make up gets no queue of its own.
                    Standing::Unknown => submission.function = u32::MAX,
                    _ => {}
                }
                if !self.wait_in_backlog(index, &submission)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lets a call wait for its function's turn. False where the lane is cut instead: no honest host has more of them than slots.
    pub(super) fn wait_in_backlog(&mut self, index: usize, submission: &Submission) -> io::Result<bool> {
        if self.backlog.push(index, submission).is_ok() {
            return Ok(true);
        }
        self.fault(index, "more calls than slots")?;
        Ok(false)
    }

    /// Serves from the backlog. True where there was anything.
    #[cold]
    fn run_backlog(&mut self) -> io::Result<bool> {
        let began = self.scheduler.spent();
        for left in (0..BATCH).rev() {
            let Some(turn) = self.backlog.turn() else { return Ok(left + 1 < BATCH) };
            self.serve(turn)?;
            if self.scheduler.spent() - began >= self.round_cycles || self.stirred || self.control_waits() {
                break;
            }
        }
        Ok(true)
    }

    /// Gives a function its turn.
    #[inline]
    fn serve(&mut self, turn: Turn) -> io::Result<()> {
        let (began, spent, suspended) = (cycles(), self.scheduler.spent(), self.scheduler.suspended());
        match self.step(turn) {
            Step::Start => {
                self.lanes.has_rival = self.backlog.has_rival(turn, true);
                let Some(submission) = self.backlog.pop(turn) else { return Ok(()) };
                self.take(turn.lane, &submission)?;
                self.note_suspended(suspended);
            }
            Step::Resume => {
                // Its function's other calls are next after a slice of this one.
                self.lanes.has_rival = self.can_start(turn) || self.backlog.has_rival(turn, false);
                self.backlog.resumes(turn);
                let (mine, modules) = ((turn.lane, self.backlog.function(turn)), &mut self.modules);
                let is_mine = |lane, function| (lane, function) == mine;
                let after =
                    self.scheduler.resume_next(&mut self.lanes, is_mine, |number| modules.find(number));
                if self.scheduler.suspended() < suspended {
                    self.backlog.call_over(turn);
                    // Its context is free, and its state where others wait for that.
                    self.stirred = true;
                }
                self.go_on(after)?;
            }
            Step::Park => {
                self.want_module(turn)?;
                self.backlog.park(turn);
                return Ok(());
            }
        }
        self.announce(turn.lane);
        let used = match self.scheduler.spent() - spent {
            // It did not run; to answer it took the core all the same.
            0 => cycles().saturating_sub(began),
            used => used,
        };
        self.backlog.used(turn, used + CALL_CYCLES);
        Ok(())
    }

    /// Where more calls are suspended than before, the last of them is its function's from now on.
    #[inline]
    fn note_suspended(&mut self, before: usize) {
        if self.scheduler.suspended() > before
            && let Some((lane, function)) = self.scheduler.last_suspended()
        {
            self.backlog.call_suspended(lane, function);
        }
    }

    #[inline]
    fn step(&self, turn: Turn) -> Step {
        let can_start = self.can_start(turn);
        match (can_start, self.backlog.suspended(turn) > 0) {
            (true, true) if self.backlog.started(turn) >= BATCH => Step::Resume,
            (true, _) => Step::Start,
            (false, true) => Step::Resume,
            (false, false) => Step::Park,
        }
    }

    /// Whether a function has a call that waits, and for nothing but its turn. One that will not run needs no context.
    #[inline]
    fn can_start(&self, turn: Turn) -> bool {
        let Some(submission) = self.backlog.first_call(turn) else { return false };
        let mut standing = self.standing(turn.lane, submission.function);
        if standing == Standing::Moved {
            standing = self.standing(turn.lane, self.modules.successor(submission).function);
        }
        match standing {
            Standing::Held | Standing::Cold => false,
            Standing::Ready => self.has_context_for(turn),
            _ => true,
        }
    }

    /// Where a function's module is cold, asks the node for it: now, since what is next may have the core for long.
    fn want_module(&mut self, turn: Turn) -> io::Result<()> {
        if let Some(submission) = self.backlog.first_call(turn) {
            let current = self.modules.successor(submission);
            if self.standing(turn.lane, current.function) == Standing::Cold {
                self.modules.want(current.function);
                return self.modules.say_wants(|message| self.control.try_say(message));
            }
        }
        Ok(())
    }

    /// See "Contexts".
    #[inline]
    fn has_context_for(&self, turn: Turn) -> bool {
        let (free, suspended) = (self.scheduler.free(), self.backlog.suspended(turn));
        let is_kept = || {
            free <= self.scheduler.contexts() / 8
                && self.lanes.end() > 1
                && self.backlog.suspended_of_lane(turn) > 0
        };
        suspended < free && !is_kept()
    }
}
