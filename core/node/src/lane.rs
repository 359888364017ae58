//! One incarnation of a worker's lane as the host's threads share it: submitting, draining, settling.
//!
//! Any thread may drain the completion ring: whoever wants its answer and gets the reader's lock takes everything
//! that is there, for all owners. The lock is never waited for by a caller; who does not get it knows that somebody else is at work.
//!
//! A lane that is *shut* (its worker died, lied or is told to go) settles every call that is in flight. Submitting goes on without a lock
//! meanwhile, so: a submitter publishes, fences, and looks at `shut`; the one who shuts stores `shut`, fences, and looks at the records. One
//! of the two sees to the late call. Calls of a worker that is lost go to another one where they may: see [`moves`](crate::moves).

mod drain;
mod shut;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

use crossbeam_utils::CachePadded;
use microfaas_control::POKE_SIGNAL;
use microfaas_lane::doorbell::Wish;
use microfaas_lane::host::{HostLane, Reader, Request, Reserved, Ticket};
use microfaas_lane::slots::Outcome;
use microfaas_lane::state::Phase;
use microfaas_sys::futex;
use microfaas_sys::process::Signaller;

pub(crate) use self::shut::Shut;
use crate::hub::Hub;
use crate::limits::Shares;
use crate::memory::LaneMemory;
use crate::moves::Went;
use crate::notice::{History, Note};
use crate::park::Park;
use crate::seat::{Counters, Load};

/// Bytes of a large buffer that stay committed.
const KEEP_BYTES: u32 = 64 * 1024;

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

    /// Whether the worker may be running on another core, as it says: then spinning can help.
    pub(crate) fn worker_is_elsewhere(&self) -> bool {
        let theirs = self.host.worker_words().worker_cpu.0.load(Ordering::Relaxed);
        let mine = microfaas_sys::affinity::current().map_or(0, |cpu| cpu + 1);
        theirs != 0 && mine != 0 && theirs != mine
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
}
