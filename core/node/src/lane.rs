//! One incarnation of a worker's lane as the host's threads share it: submitting, draining, settling.
//!
//! Any thread may drain the completion ring: whoever wants its answer and gets the reader's lock takes everything
//! that is there, for all owners. The lock is never waited for by a caller; who does not get it knows that somebody else is at work.
//!
//! A lane that is *shut* (its worker died, lied or is told to go) settles every call that is in flight. Submitting goes on without a lock
//! meanwhile, so: a submitter publishes, fences, and looks at `shut`; the one who shuts stores `shut`, fences, and looks at the records. One
//! of the two sees to the late call. Calls of a worker that is lost go to another one where they may: see [`moves`](crate::moves).

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use microfaas_control::POKE_SIGNAL;
use microfaas_lane::doorbell::Wish;
use microfaas_lane::host::{Completed, HostLane, Reader, Request, Reserved, Ticket};
use microfaas_lane::slots::Outcome;
use microfaas_lane::state::Phase;
use microfaas_lane::sync::full_fence;
use microfaas_lane::{Status, Violation};
use microfaas_sys::futex;
use microfaas_sys::process::Signaller;

use crate::ban::counts;
use crate::hub::Hub;
use crate::limits::Shares;
use crate::memory::LaneMemory;
use crate::moves::Went;
use crate::notice::{History, Note};
use crate::park::Park;
use crate::seat::{Counters, Load};

/// Completions taken under one fence.
const BATCH: usize = 32;
/// Bytes of a large buffer that stay committed.
const KEEP_BYTES: u32 = 64 * 1024;

/// Why a lane takes no more calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Shut {
    /// It does not; it is in use.
    Open = 0,
    /// The worker died, or was found to hang.
    Lost = 1,
    /// The node is shutting down.
    Closed = 2,
    /// The node that the host was attached to is gone.
    NodeGone = 3,
    /// The worker was found to lie: nothing that it says of its calls is believed.
    Lied = 4,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) host: HostLane<LaneMemory>,
    reader: Mutex<Reader>,
    /// Where the reader was when it was last at work, for a look without the lock.
    head: AtomicU64,
    shut: AtomicU32,
    /// Completions of some calls need a look at their notes: those that have left, and those that count against a limit.
    watched: AtomicBool,
    pub(crate) went: Went,
    pub(crate) shares: Shares,
    pub(crate) notes: Box<[Note]>,
    pub(crate) park: Park,
    pub(crate) worker: u32,
    pub(crate) event: OwnedFd,
    pub(crate) hub: Arc<Hub>,
    pub(crate) signaller: Signaller,
    load: Arc<CachePadded<Load>>,
    counters: Arc<Counters>,
}

impl Lane {
    pub(crate) fn new(
        memory: LaneMemory,
        worker: u32,
        event: OwnedFd,
        hub: Arc<Hub>,
        signaller: Signaller,
        load: Arc<CachePadded<Load>>,
        counters: Arc<Counters>,
    ) -> Self {
        let (host, reader) = HostLane::new(memory);
        let notes = (0..host.geometry().slots()).map(|_| Note::default()).collect();
        let (shut, park) = (AtomicU32::new(Shut::Open as u32), Park::new(hub.spin_ns));
        let (head, reader) = (AtomicU64::new(reader.head()), Mutex::new(reader));
        let (watched, went, shares) = (AtomicBool::new(false), Went::default(), Shares::default());
        Self {
            host,
            reader,
            head,
            shut,
            watched,
            went,
            shares,
            notes,
            park,
            worker,
            event,
            hub,
            signaller,
            load,
            counters,
        }
    }

    /// Of a lane that no submitter knows yet: whose its calls are, and where they count.
    pub(crate) fn belongs_to(
        &mut self,
        worker: u32,
        load: &Arc<CachePadded<Load>>,
        counters: &Arc<Counters>,
    ) {
        (self.worker, self.load, self.counters) = (worker, Arc::clone(load), Arc::clone(counters));
    }

    pub(crate) fn note(&self, ticket: Ticket) -> &Note {
        &self.notes[ticket.slot as usize]
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Relaxed) != Shut::Open as u32
    }

    /// Whether calls that were settled by shutting the lane were cancelled rather than lost.
    pub(crate) fn was_closed(&self) -> bool {
        self.shut.load(Ordering::Relaxed) == Shut::Closed as u32
    }

    /// Whether calls were settled because there is no node any more.
    pub(crate) fn lost_its_node(&self) -> bool {
        self.shut.load(Ordering::Relaxed) == Shut::NodeGone as u32
    }

    /// Whether the worker was found to lie.
    pub(crate) fn has_lied(&self) -> bool {
        self.shut.load(Ordering::Relaxed) == Shut::Lied as u32
    }

    /// Publishes a call and wakes the worker where it sleeps. The slot's buffer holds the request.
    #[inline]
    pub(crate) fn submit(
        self: &Arc<Self>,
        reserved: Reserved,
        request: &Request,
        submitted_ns: u64,
        history: History,
    ) -> Ticket {
        let slot = reserved.slot();
        let note = &self.notes[slot as usize];
        note.open(request.function, submitted_ns, request.deadline_ns, history);
        if history.is_limited() {
            self.watch_completions();
        }
        if self.host.geometry().is_large(slot) {
            let touched = request.body_len.saturating_add(request.meta_len).saturating_add(8);
            note.request_touched.fetch_max(touched.min(self.host.geometry().large_bytes), Ordering::Relaxed);
        }
        self.publish_cpu();
        let ticket = self.host.submit(reserved, request);
        // Has the fence that orders the submission before all looks below.
        self.wake_worker();
        if self.is_shut() {
            self.resolve();
        }
        self.hub.deadline_set(request.deadline_ns);
        ticket
    }

    /// Tells the worker which core its calls come from, where that has changed.
    fn publish_cpu(&self) {
        let cpu = microfaas_sys::affinity::current().map_or(0, |cpu| cpu + 1);
        let word = &self.host.host_words().host_cpu.0;
        if word.load(Ordering::Relaxed) != cpu {
            word.store(cpu, Ordering::Relaxed);
        }
    }

    /// Wakes the worker where it sleeps, or has given a call a long slice, for what was published. Begins with a `SeqCst` fence.
    pub(crate) fn wake_worker(&self) {
        match self.host.worker_wish() {
            None => {}
            Some(Wish::Ring) => self.ring_worker(),
            Some(Wish::Interrupt) => self.poke_worker(),
        }
    }

    /// Wakes the worker.
    pub(crate) fn ring_worker(&self) {
        let bell = &self.host.host_words().worker_bell;
        bell.ring();
        let _ = futex::wake_all(bell.word().as_std());
    }

    /// Takes the rest of a long slice from the call that runs. Where that is not possible, the slice's end has to do.
    #[cold]
    fn poke_worker(&self) {
        match self.signaller.send(POKE_SIGNAL) {
            Ok(()) => self.counters.poked(),
            Err(error) => tracing::debug!(worker = self.worker, %error, "worker cannot be signalled"),
        }
    }

    /// Wakes the host's thread that sleeps on the lane's bell. The bell is the worker's word; the host may move it too,
    /// since it only ever means "look again".
    fn ring_leader(&self) {
        let bell = &self.host.worker_words().host_bell;
        bell.ring();
        let _ = futex::wake_all(bell.word().as_std());
    }

    /// Whether the worker may be running on another core, as it says: then spinning can help.
    pub(crate) fn worker_is_elsewhere(&self) -> bool {
        let theirs = self.host.worker_words().worker_cpu.0.load(Ordering::Relaxed);
        let mine = microfaas_sys::affinity::current().map_or(0, |cpu| cpu + 1);
        theirs != 0 && mine != 0 && theirs != mine
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Reader> {
        // A panic between two completions leaves the reader as good as before.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Reader>> {
        match self.reader.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Takes what has been completed, unless another thread is doing so. Returns how many.
    pub(crate) fn drain(&self) -> usize {
        if !self.host.is_ready_at(self.head.load(Ordering::Relaxed)) {
            return 0;
        }
        self.try_lock().map_or(0, |mut reader| self.drain_with(&mut reader, None))
    }

    /// Takes what has been completed, for all owners; `own` is the caller's, who needs no notice. At most two rings' worth, so that a
    /// worker cannot hold a thread here for ever. Returns how many.
    pub(crate) fn drain_with(&self, reader: &mut Reader, own: Option<Ticket>) -> usize {
        let mut total = 0;
        let limit = 2 * self.host.geometry().ring_entries() as usize;
        while total < limit && !self.is_shut() {
            let mut batch = [Ticket { slot: 0, generation: 0 }; BATCH];
            let mut count = 0;
            let mut settled = 0;
            let mut violation = None;
            while count < BATCH {
                let mut is_here = true;
                match self.host.poll_with(reader, |completed| is_here = self.judge(completed)) {
                    Ok(None) => break,
                    Ok(Some(completed)) => {
                        settled += 1;
                        if is_here {
                            self.counters.told(&completed);
                        }
                        if is_here && !completed.abandoned && Some(completed.ticket) != own {
                            batch[count] = completed.ticket;
                            count += 1;
                        }
                        if settled as usize == limit {
                            break;
                        }
                    }
                    Err(found) => {
                        violation = Some(found);
                        break;
                    }
                }
            }
            if settled > 0 {
                self.head.store(reader.head(), Ordering::Relaxed);
                self.load.sub(settled);
            }
            self.tell(&batch[..count]);
            total += settled as usize;
            if let Some(found) = violation {
                self.violated(found);
            }
            if settled == 0 || count < BATCH {
                break;
            }
        }
        total
    }

    /// Whether there may be something to take. Nothing ever comes of what lies in the ring of a lane that is shut.
    pub(crate) fn has_news(&self, reader: &Reader) -> bool {
        !self.is_shut() && self.host.is_ready(reader)
    }

    /// From now on each completion is looked up in its note.
    pub(crate) fn watch_completions(&self) {
        if !self.watched.load(Ordering::Relaxed) {
            self.watched.store(true, Ordering::Relaxed);
        }
    }

    /// Before the owner knows: what it does next already finds the function banned. False where the call goes on in another lane.
    #[inline]
    fn judge(&self, completed: &Completed) -> bool {
        if counts(completed.status) {
            let function = self.note(completed.ticket).function.load(Ordering::Relaxed);
            if self.hub.bans.fault(function, completed.is_unsafe) {
                self.hub.wake_supervisor();
            }
        }
        !self.watched.load(Ordering::Relaxed) || self.leaves_worker(completed.ticket)
    }

    /// A call in flight is about to be settled. False where it goes on in another lane.
    #[cold]
    fn leaves_worker(&self, ticket: Ticket) -> bool {
        let history = self.note(ticket).history();
        if history.has_left() {
            return false;
        }
        if history.is_limited() {
            self.hub.quotas.release(history.name());
        }
        true
    }

    /// Wakes the owners of settled calls.
    fn tell(&self, tickets: &[Ticket]) {
        if tickets.is_empty() {
            return;
        }
        // Pairs with the fence in `Note::expect`.
        full_fence();
        let mut leader = false;
        for ticket in tickets {
            leader |= self.note(*ticket).tell();
        }
        if leader {
            self.ring_leader();
        }
        self.hub.settled();
    }

    /// Wakes the owner of a call that is to look after it elsewhere.
    pub(crate) fn nudge_owner(&self, ticket: Ticket) {
        // Pairs with the fence in `Note::expect`.
        full_fence();
        if self.note(ticket).tell() {
            self.ring_leader();
        }
    }

    /// The worker lied: nothing it says counts any more. The supervisor sees to its calls.
    fn violated(&self, violation: Violation) {
        self.counters.violation(violation);
        tracing::warn!(worker = self.worker, %violation, "worker broke the lane's protocol, it will be replaced");
        self.mark(Shut::Lied);
        // With few calls left it would be the least busy of all until the supervisor has come.
        self.load.close();
        self.hub.wake_supervisor();
    }

    fn mark(&self, why: Shut) {
        let _ =
            self.shut.compare_exchange(Shut::Open as u32, why as u32, Ordering::Relaxed, Ordering::Relaxed);
        // Pairs with the fence of a submitter.
        fence(Ordering::SeqCst);
    }

    /// Takes what was completed, then sees that every call that is still in flight is settled or goes elsewhere. To be called when the worker is dead, or is not to be
    /// heard any more.
    pub(crate) fn shut_down(self: &Arc<Self>, why: Shut) {
        {
            let mut reader = self.lock();
            self.drain_with(&mut reader, None);
            self.mark(why);
        }
        self.resolve();
    }

    /// Sees that what is in flight on a lane that is shut is settled or goes elsewhere.
    #[cold]
    fn resolve(self: &Arc<Self>) {
        let why = self.shut.load(Ordering::Relaxed);
        let is_lost = why == Shut::Lost as u32 || why == Shut::Lied as u32;
        if is_lost && self.hub.orphans.add(self) {
            self.hub.wake_supervisor();
        } else {
            self.settle_all(Status::WorkerLost);
        }
    }

    /// Settles what is in flight on a lane that is shut.
    pub(crate) fn settle_all(&self, status: Status) {
        let mut reader = self.lock();
        for ticket in self.host.in_flight() {
            let (never_started, was_counted) = self.withhold(ticket);
            self.settle(&mut reader, ticket, &Outcome::bare(status, never_started), was_counted);
        }
    }

    /// Settles one call in flight on a lane that is shut. `was_counted`: when its owner took it back.
    pub(crate) fn settle(&self, reader: &mut Reader, ticket: Ticket, outcome: &Outcome, was_counted: bool) {
        let is_here = self.leaves_worker(ticket);
        let counts = is_here && !was_counted;
        let function = self.note(ticket).function.load(Ordering::Relaxed);
        let is_lost = is_here && self.verdict(outcome.status) == Status::WorkerLost;
        // Nobody has the request afterwards.
        let request_id = if is_lost { self.request_id(reader, ticket) } else { None };
        let Some(completed) = self.host.settle(reader, ticket, outcome) else { return };
        if is_lost && !completed.abandoned {
            let (worker, Ticket { slot, generation }) = (self.worker, ticket);
            tracing::warn!(
                worker,
                function_number = function,
                slot,
                generation,
                request_id,
                "a call is lost with its worker"
            );
        }
        if counts {
            self.hub.decided.count(function, self.verdict(completed.status));
        }
        self.load.sub(1);
        if is_here {
            self.counters.settled(&completed);
        }
        if is_here && !completed.abandoned {
            self.tell(&[ticket]);
        }
    }

    /// How far the worker has come with its completions, as far as they were taken.
    pub(crate) fn position(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The slot of a taken or abandoned call goes back; memory of large buffers before it.
    pub(crate) fn release(&self, ticket: Ticket, outcome: &Outcome) {
        let note = self.note(ticket);
        if outcome.overflow {
            let len = outcome.body_len.saturating_add(outcome.meta_len).saturating_add(8);
            let touched = len.min(self.host.geometry().response_bytes);
            note.response_touched.fetch_max(touched, Ordering::Relaxed);
        }
        let memory = self.host.memory();
        if note.request_touched.load(Ordering::Relaxed) > KEEP_BYTES {
            let touched = note.request_touched.swap(0, Ordering::Relaxed);
            memory.give_back_request(ticket.slot, KEEP_BYTES.into(), touched.into());
        }
        if note.response_touched.load(Ordering::Relaxed) > KEEP_BYTES {
            let touched = note.response_touched.swap(0, Ordering::Relaxed);
            memory.give_back_response(ticket.slot, KEEP_BYTES.into(), touched.into());
        }
        self.host.release(ticket);
    }

    /// The owner no longer cares; the slot is free when the completion comes. What that completion touches is not known then, so the slot's next
    /// release gives the whole overflow back.
    pub(crate) fn abandon(&self, ticket: Ticket) {
        let note = self.note(ticket);
        note.expect_nothing();
        if let Some(outcome) = self.host.outcome(ticket) {
            self.release(ticket, &outcome);
            return;
        }
        note.response_touched.store(self.host.geometry().response_bytes, Ordering::Relaxed);
        // Where the outcome came in between, this releases the slot.
        self.host.abandon(ticket);
    }

    /// The slots whose calls are in flight, with their deadlines.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = (Ticket, u64)> + '_ {
        self.host.in_flight().map(|ticket| (ticket, self.note(ticket).deadline_ns()))
    }

    /// Supervisor: whether the worker says that it has started this call.
    pub(crate) fn has_started(&self, ticket: Ticket) -> bool {
        self.host.phase(ticket) == Some(Phase::Started)
    }

    /// Supervisor: whether the worker has its hands full: it has started a call whose deadline is later than `since_ns`. It is believed until then.
    pub(crate) fn is_at_work(&self, since_ns: u64) -> bool {
        self.in_flight().any(|(ticket, deadline)| deadline > since_ns && self.has_started(ticket))
    }

    /// Supervisor: the deadline of a call in flight has passed; wakes an owner that has left a waker. Sleepers wake by themselves.
    pub(crate) fn overdue(&self, ticket: Ticket) {
        fence(Ordering::SeqCst);
        let _ = self.note(ticket).tell();
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    /// A status that the host itself gives to calls on a lane that was shut.
    pub(crate) fn verdict(&self, status: Status) -> Status {
        if status == Status::WorkerLost && self.was_closed() { Status::Cancelled } else { status }
    }
}
