//! Calls that change their worker, unseen by their owners. The supervisor, or an attached host's thread, is the one that moves them:
//!
//! | why | which calls | how often |
//! | --- | --- | --- |
//! | their worker has died | those that had not started | [`MOVES_MAX`] times |
//! | their worker has died | others of functions declared `idempotent`, when they were submitted and now, with `CALL_RETRIED` | once |
//! | their worker has lied | as others, whatever it says of them: only of idempotent functions | once |
//! | another worker has nothing to do | those that have waited for [`WAIT_NS`] and have not started, but for a module that is just being loaded | [`MOVES_MAX`] times |
//!
//! The request is still in the slot, in memory that only the host writes: it is copied into a slot of another lane, and the lane that the call was
//! submitted to notes where it [went](Went). The owner finds that where it would find the outcome, and goes on there. What cannot be moved at once, since no worker is up or no
//! slot is free, waits in its old slot until its deadline, at most [`PATIENCE_NS`].
//!
//! **Once and no more.** A call that waits at a worker is moved only when it was taken back by the compare-and-swap of its call state, which an honest worker loses
//! and then does not run it. Of a worker that has died the state is believed as it lies there. The state is the worker's memory: one that was taken over can run a call, leave it
//! queued and die, and the call runs again. It harms its own function's calls by that, which it could have answered as it liked.
//!
//! **Both want it.** An owner gives the record up, fences, and looks where the call went; the mover notes where it went, fences, and looks whether the record is
//! wanted. At least one of the two finds the other, and who takes the note out of the table ends the call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use microfaas_lane::Status;
use microfaas_lane::host::{Reader, Request, Reserved, Ticket};
use microfaas_lane::message::message_len;
use microfaas_lane::slots::Outcome;
use microfaas_lane::state::Phase;
use microfaas_sys::clock::{self, monotonic_ns};

use crate::lane::Lane;
use crate::names::Entry;
use crate::node::Shared;
use crate::notice::History;

/// Moves of one call.
const MOVES_MAX: u32 = 8;
/// How long a call waits at its worker before it is worth moving, in nanoseconds.
const WAIT_NS: u64 = 1_000_000;
/// How long calls of a lost worker wait for another one, in nanoseconds.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Calls that go to one idle worker at a time.
const BATCH: usize = 16;
/// `microfaas_abi::CALL_RETRIED`: this crate does not depend on what modules are written against.
const CALL_RETRIED: u32 = 1;

/// Where calls of one lane went.
#[derive(Debug, Default)]
pub(crate) struct Went {
    any: AtomicBool,
    /// By slot. One whose owner has not looked yet keeps its slot, and its generation.
    table: Mutex<Table>,
}

type Table = HashMap<u32, Forward>;

#[derive(Debug)]
struct Forward {
    /// Of the call in the slot that it left.
    generation: u32,
    lane: Arc<Lane>,
    ticket: Ticket,
}

impl Went {
    /// Whether any call ever left.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Whether this call has left and its owner has not followed.
    pub(crate) fn has(&self, from: Ticket) -> bool {
        self.any()
            && self.table().get(&from.slot).is_some_and(|forward| forward.generation == from.generation)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No panic leaves the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the note of an earlier call of the slot. The slot was used again, so its owner has given that call up and has not come to look here: it never
    /// finds the note any more, and the call is the caller's to end.
    #[must_use]
    fn note(&self, from: Ticket, lane: Arc<Lane>, to: Ticket) -> Option<(Arc<Lane>, Ticket)> {
        let earlier =
            self.table().insert(from.slot, Forward { generation: from.generation, lane, ticket: to });
        self.any.store(true, Ordering::Release);
        // See "Both want it".
        fence(Ordering::SeqCst);
        earlier.map(|Forward { lane, ticket, .. }| (lane, ticket))
    }

    #[cold]
    fn take(&self, from: Ticket) -> Option<(Arc<Lane>, Ticket)> {
        let mut table = self.table();
        table.get(&from.slot).filter(|forward| forward.generation == from.generation)?;
        table.remove(&from.slot).map(|Forward { lane, ticket, .. }| (lane, ticket))
    }
}

/// Lanes whose workers are lost, with calls that go elsewhere or are to be answered.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    lanes: Mutex<Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    /// With the time after which nobody waits any more.
    lanes: Vec<(Arc<Lane>, u64)>,
    /// Nobody sees to them any more.
    over: bool,
}

impl Orphans {
    fn lost(&self) -> MutexGuard<'_, Lost> {
        // No panic leaves the list half changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False where nobody sees to it: the caller settles its calls.
    pub(crate) fn add(&self, lane: &Arc<Lane>) -> bool {
        let mut lost = self.lost();
        if !lost.over && !lost.lanes.iter().any(|(known, _)| Arc::ptr_eq(known, lane)) {
            lost.lanes.push((Arc::clone(lane), monotonic_ns().saturating_add(PATIENCE_NS)));
        }
        !lost.over
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        !self.lost().lanes.is_empty()
    }

    fn take(&self) -> Vec<(Arc<Lane>, u64)> {
        std::mem::take(&mut self.lost().lanes)
    }

    /// Nobody sees to lost calls any more: those that wait are cancelled, and the lanes of later ones settle them.
    pub(crate) fn end(&self) {
        let lanes = {
            let mut lost = self.lost();
            lost.over = true;
            std::mem::take(&mut lost.lanes)
        };
        for (lane, _) in lanes {
            lane.settle_all(Status::Cancelled);
        }
    }
}

/// Lanes that are being seen to: what is left of them goes back, whatever happens meanwhile.
struct Taken<'a> {
    orphans: &'a Orphans,
    lanes: Vec<(Arc<Lane>, u64)>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for (lane, until_ns) in self.lanes.drain(..) {
            self.orphans.keep(lane, until_ns);
        }
    }
}

/// How an owner has given its call up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Parting {
    /// It was taken back: no worker counts it.
    pub(crate) is_ours: bool,
    /// It certainly never starts.
    pub(crate) never_started: bool,
}

/// Why a call stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    /// There is no place for it now.
    Wait,
    /// It cannot go; this is its end, where its worker is lost.
    End(Status, bool),
}

impl Lane {
    /// Owner: where the call went, if it did; it is the owner's to look after there, and this lane's slot is free.
    pub(crate) fn follow(&self, ticket: Ticket) -> Option<(Arc<Lane>, Ticket)> {
        if !self.went.any() {
            return None;
        }
        let next = self.went.take(ticket)?;
        self.abandon(ticket);
        Some(next)
    }

    /// Owner: wants the call no more, wherever it is.
    pub(crate) fn give_up(&self, ticket: Ticket) -> Parting {
        let is_ours = self.host.take_back(ticket);
        self.let_go(ticket, is_ours)
    }

    /// As [`give_up`](Self::give_up), of a call that the owner has tried to take back, with this result. That says nothing of one that went elsewhere all the same, as it may
    /// where its worker was found to lie, nor of one that such a worker has run without saying so.
    pub(crate) fn let_go(&self, ticket: Ticket, is_ours: bool) -> Parting {
        self.abandon(ticket);
        // See "Both want it". Also: who has sent the call of a liar elsewhere, since its owner still wanted it, has said before that the worker lies.
        fence(Ordering::SeqCst);
        let next = if self.went.any() { self.went.take(ticket) } else { None };
        match next {
            Some((lane, ticket)) => lane.give_up(ticket),
            None => Parting { is_ours, never_started: is_ours && !self.has_lied() },
        }
    }

    /// Whether a call may have run, as far as its worker is believed. `None` where its owner has taken it back.
    fn may_have_run(&self, ticket: Ticket) -> Option<bool> {
        if self.has_lied() {
            return Some(true);
        }
        match self.host.phase(ticket) {
            Some(Phase::Queued) => Some(false),
            Some(Phase::Cancelled) => None,
            // Over, but not announced.
            Some(Phase::Started) | None => Some(true),
        }
    }

    /// Keeps a call from being started, where it has not been. Whether it certainly never starts, and whether its owner has seen to that, and counted it.
    pub(crate) fn withhold(&self, ticket: Ticket) -> (bool, bool) {
        let is_ours = self.host.take_back(ticket);
        let is_theirs = !is_ours && self.host.phase(ticket) == Some(Phase::Cancelled);
        (!self.has_lied() && (is_ours || is_theirs), is_theirs)
    }

    /// Sees to the calls of a lost worker. True when none is left.
    fn see_to_lost(self: &Arc<Self>, shared: &Shared, until_ns: u64) -> bool {
        let mut reader = self.lock();
        let mut is_done = true;
        let now = monotonic_ns();
        let calls: Vec<Ticket> = self.host.in_flight().collect();
        for ticket in calls {
            let note = self.note(ticket);
            let (deadline, started) = (note.deadline_ns(), self.may_have_run(ticket));
            let stay = match started {
                // Its owner looks where it went before it looks at this.
                _ if note.history().has_left() => Stay::End(Status::Cancelled, true),
                None => Stay::End(Status::Cancelled, true),
                Some(started) if now >= deadline && deadline != u64::MAX => match started {
                    true => Stay::End(Status::Timeout, false),
                    false => Stay::End(Status::Expired, true),
                },
                Some(started) => match self.send_on(shared, &mut reader, ticket, started, None) {
                    // As above.
                    Ok(()) => Stay::End(Status::Cancelled, true),
                    Err(stay) => stay,
                },
            };
            let (status, never_started) = match stay {
                Stay::End(status, never_started) => (status, never_started),
                Stay::Wait if now < until_ns => {
                    is_done = false;
                    continue;
                }
                Stay::Wait => (Status::WorkerLost, started == Some(false)),
            };
            let (withheld, was_counted) = self.withhold(ticket);
            let outcome = match never_started && !withheld {
                // It was started in the last moments of a worker that was killed.
                true => Outcome::bare(Status::WorkerLost, false),
                false => Outcome::bare(status, never_started),
            };
            self.settle(&mut reader, ticket, &outcome, was_counted);
        }
        is_done
    }

    /// Sends a call in flight to a worker: `to`, or the one with the least to do. Its old slot is still taken afterwards.
    fn send_on(
        self: &Arc<Self>,
        shared: &Shared,
        reader: &mut Reader,
        ticket: Ticket,
        started: bool,
        to: Option<&Arc<Lane>>,
    ) -> Result<(), Stay> {
        let lost = Stay::End(Status::WorkerLost, !started);
        let Some((body_len, meta_len)) = self.host.asked(reader, ticket) else { return Err(lost) };
        let note = self.note(ticket);
        let history = note.history();
        let entry = shared.may_go(history, started)?;
        let len = message_len(body_len as usize, meta_len as usize).ok_or(lost)?;
        let (lane, mut reserved) = match to {
            Some(lane) => (Arc::clone(lane), lane.host.reserve(len).map_err(|_| Stay::Wait)?),
            None => shared
                .reserve_again(len, entry)
                .map_err(|stay| if started && stay != Stay::Wait { lost } else { stay })?,
        };
        if to.is_some() {
            lane.load().add();
        }
        shared.sends(lane.worker as usize, entry);
        // The last moment at which the owner or a worker that still runs may have it instead.
        let is_ours = started || self.host.take_back(ticket);
        let buffer = lane.host.buffer(&mut reserved);
        if !is_ours || self.host.copy_request(reader, ticket, buffer).is_none() {
            unreserve(&lane, reserved);
            return Err(Stay::Wait);
        }
        let history = history.moved(started);
        let request = Request {
            function: entry.function,
            body_len,
            meta_len,
            deadline_ns: note.deadline_ns(),
            flags: if history.is_retry() { CALL_RETRIED } else { 0 },
            submitted_cycles: clock::cycles_at(note.submitted_ns()),
        };
        note.leaves();
        self.watch_completions();
        let next = lane.submit(reserved, &request, note.submitted_ns(), history);
        self.counters().moved(history.is_retry() && started);
        let earlier = self.went.note(ticket, Arc::clone(&lane), next);
        // Its owner has gone meanwhile.
        let is_alone = self.host.asked(reader, ticket).is_none();
        let alone = is_alone.then(|| self.went.take(ticket)).flatten();
        for (lane, call) in earlier.into_iter().chain(alone) {
            let function = lane.note(call).function.load(Ordering::Relaxed);
            if lane.give_up(call).is_ours {
                self.hub.decided.count(function, Status::Cancelled);
            }
        }
        self.nudge_owner(ticket);
        Ok(())
    }
}

fn unreserve(lane: &Lane, reserved: Reserved) {
    lane.host.cancel_reservation(reserved);
    lane.load().sub(1);
}

impl Shared {
    /// What a call is to find where it goes, if it may go anywhere.
    fn may_go(&self, history: History, started: bool) -> Result<Entry, Stay> {
        let lost = Stay::End(Status::WorkerLost, !started);
        if history.moves() >= MOVES_MAX || started && (history.is_retry() || !history.is_idempotent()) {
            return Err(lost);
        }
        let never_ran = |status| if started { lost } else { Stay::End(status, true) };
        let entry = self.names.resolve(history.name()).ok_or_else(|| never_ran(Status::NotFound))?;
        if started && !entry.is_idempotent {
            return Err(lost);
        }
        self.hub.bans.check(entry.function).map_err(|_| never_ran(Status::Banned))?;
        Ok(entry)
    }

    /// A slot for a call that was accepted already.
    fn reserve_again(&self, len: usize, function: Entry) -> Result<(Arc<Lane>, Reserved), Stay> {
        let best = self.best_for(function).ok_or_else(|| match self.is_closed() {
            true => Stay::End(Status::Cancelled, true),
            false => Stay::Wait,
        })?;
        let count = self.seats.len();
        let lanes = (best..count).chain(0..best).filter_map(|i| self.seats[i].lane());
        for lane in lanes.filter(|lane| !lane.is_shut()) {
            if let Ok(reserved) = lane.host.reserve(len) {
                lane.load().add();
                return Ok((lane, reserved));
            }
        }
        Err(Stay::Wait)
    }

    /// Supervisor: sees to the calls of lost workers. To be called whenever it is awake.
    pub(crate) fn see_to_orphans(&self) {
        let mut taken = Taken { orphans: &self.hub.orphans, lanes: self.hub.orphans.take() };
        taken.lanes.retain(|(lane, until_ns)| !lane.see_to_lost(self, *until_ns));
    }

    /// Supervisor: workers that have nothing to do get calls that wait at others.
    pub(crate) fn balance(&self) {
        if self.seats.len() < 2 {
            return;
        }
        for idle in self.seats.iter().filter(|seat| seat.load.get() == Some(0) && !seat.load.is_leaving()) {
            let Some(to) = idle.lane().filter(|lane| !lane.is_shut()) else { continue };
            let Some(busiest) = self.seats.iter().max_by_key(|seat| seat.load.get()) else { return };
            if busiest.load.outstanding() < 2 {
                return;
            }
            if let Some(from) = busiest.lane() {
                from.send_waiting(self, &to);
            }
        }
    }

    /// Whether [`balance`](Self::balance) may find something soon.
    pub(crate) fn may_be_uneven(&self) -> bool {
        self.seats.len() > 1 && self.seats.iter().any(|seat| seat.load.outstanding() > 1)
    }
}

impl Lane {
    /// Sends half of the calls that wait here to another worker.
    fn send_waiting(self: &Arc<Self>, shared: &Shared, to: &Arc<Self>) {
        let Some(mut reader) = self.try_lock() else { return };
        self.drain_with(&mut reader, None);
        if self.is_shut() {
            return;
        }
        let since = monotonic_ns().saturating_sub(WAIT_NS);
        // What is being loaded here is here sooner than anywhere where it would have to be loaded, too.
        let mut loading = shared.stock.loading(self.worker as usize);
        loading.retain(|function| !shared.stock.is_warm(to.worker as usize, *function));
        let waits = |ticket: &Ticket| {
            let note = self.note(*ticket);
            // What the call state says of one that has left, an honest worker has not written.
            self.host.phase(*ticket) == Some(Phase::Queued)
                && note.submitted_ns() < since
                && !note.history().has_left()
                && !loading.contains(&note.function.load(Ordering::Relaxed))
                && shared.may_go(note.history(), false).is_ok()
        };
        let mut calls: Vec<Ticket> = self.host.in_flight().filter(waits).collect();
        // Those that came last would wait longest. The lane's own queue keeps its order.
        calls.sort_by_key(|ticket| std::cmp::Reverse(self.note(*ticket).submitted_ns()));
        calls.truncate(calls.len().div_ceil(2).min(BATCH));
        for ticket in calls {
            if to.is_shut() {
                return;
            }
            // What its worker has started meanwhile, or has no place there, stays.
            let _ = self.send_on(shared, &mut reader, ticket, false, Some(to));
        }
    }
}

impl Orphans {
    fn keep(&self, lane: Arc<Lane>, until_ns: u64) {
        let mut lost = self.lost();
        if !lost.lanes.iter().any(|(known, _)| Arc::ptr_eq(known, &lane)) {
            lost.lanes.push((lane, until_ns));
        }
    }
}

#[cfg(test)]
mod stress;
#[cfg(test)]
pub(crate) mod tests;
