//! Moves step by step: lanes whose workers are played by the test, and owners that are held up where it hurts.
#![expect(unsafe_code, reason = "plays workers in the same process")]

use std::future::Future;
use std::pin::pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use microfaas_lane::layout::Geometry;
use microfaas_lane::state::Start;
use microfaas_lane::worker::{Bases, Completion, WorkerLane};
use microfaas_sys::eventfd;
use microfaas_sys::mapping::Mapping;
use microfaas_sys::process::Signaller;

use super::*;
use crate::call::Prepared;
use crate::catalog::Catalog;
use crate::function::FunctionInfo;
use crate::hub::Hub;
use crate::lane::Shut;
use crate::memory::LaneMemory;
use crate::seat::Seat;

pub(super) const FUNCTION: u32 = 0;
pub(super) const SLOTS: u32 = 4;

/// A worker's end, and what it is mapped at.
pub(crate) struct Player {
    end: WorkerLane,
    regions: [Mapping; 3],
}

// SAFETY: the mappings go with the end, and one thread at a time has both.
unsafe impl Send for Player {}

impl Player {
    /// Answers the next call, as an honest worker would; false where there is none. Notes that a call was run by the number in its body, if there is one.
    pub(crate) fn answer(&mut self, runs: &[AtomicU8]) -> bool {
        let Some(submission) = self.end.pop().unwrap() else { return false };
        let status = match self.end.start(&submission) {
            Start::Yours => {
                // SAFETY: popped, and completed below.
                let (body, _) = unsafe { self.end.request(&submission) };
                if let Ok(id) = body.try_into() {
                    runs[usize::from_le_bytes(id)].fetch_add(1, Ordering::Relaxed);
                }
                Status::Ok
            }
            Start::TakenBack => Status::Cancelled,
        };
        let (slot, generation) = (submission.slot, submission.generation);
        let (body_len, meta_len, cpu_ns) = (0, 0, 0);
        let (overflow, is_unsafe) = (false, false);
        let done = Completion { slot, generation, status, body_len, meta_len, overflow, is_unsafe, cpu_ns };
        self.end.complete(&done);
        true
    }

    /// Begins the next call, if there is one, and gets no further.
    pub(crate) fn begin(&mut self) {
        if let Some(submission) = self.end.pop().unwrap() {
            let _ = self.end.start(&submission);
        }
    }

    /// Takes the next call, if there is one: the number of its function.
    pub(crate) fn next_function(&mut self) -> Option<u32> {
        Some(self.end.pop().unwrap()?.function)
    }

    /// Whether somebody sleeps who is to be woken; rings.
    pub(super) fn rings(&self) -> bool {
        self.end.host_sleeps().futex
    }

    /// Writes the state of a call that has not started, as a hostile worker may at any time.
    fn queue_again(&self, call: Ticket) {
        let offset = self.end.geometry().state_offset(call.slot);
        // SAFETY: the slot's call state, within the mapping.
        let state = unsafe { self.regions[2].base().byte_add(offset) };
        // SAFETY: as `CallState`: an atomic word, for which any content is valid.
        let state = unsafe { state.cast::<AtomicU64>().as_ref() };
        state.store(u64::from(call.generation) << 32 | u64::from(Phase::Queued as u32), Ordering::Relaxed);
    }
}

/// A node without a supervisor, and a lane to each of its workers. One function, which may be run again, one call of it at a time.
pub(crate) fn node(workers: u32) -> (Arc<Shared>, Vec<(Arc<Lane>, Player)>) {
    let hub = Arc::new(Hub::new(0).unwrap());
    let seats = (0..workers).map(|index| Seat::new(index, None)).collect();
    let (shared, _) = Shared::new(seats, hub);
    let (function, deadline_ns) = (FUNCTION, u64::MAX);
    let entry = Entry { function, deadline_ns, concurrency: 1, is_lazy: false, is_idempotent: true };
    shared.names.publish(&[Some(entry)]);
    let info = FunctionInfo {
        id: 0,
        name: "f".into(),
        module: "f.so".into(),
        deadline: std::time::Duration::MAX,
        idempotent: true,
        limits: Default::default(),
        concurrency: 1,
    };
    shared.catalog.store(Arc::new(Catalog { functions: vec![info], ..Catalog::default() }));
    let lanes = (0..workers).map(|worker| lane(&shared, worker)).collect();
    (shared, lanes)
}

pub(crate) fn lane(shared: &Shared, worker: u32) -> (Arc<Lane>, Player) {
    let geometry = Geometry {
        small_slots: SLOTS,
        large_slots: 0,
        small_bytes: 256,
        large_bytes: 4096,
        response_bytes: 4096,
    };
    let (memory, fds) = LaneMemory::create(geometry).unwrap();
    let seat = &shared.seats[worker as usize];
    let (hub, signaller) = (Arc::clone(&shared.hub), Signaller::open(std::process::id()).unwrap());
    let (event, load, counters) =
        (eventfd::create().unwrap(), Arc::clone(&seat.load), Arc::clone(&seat.counters));
    let lane = Arc::new(Lane::new(memory, worker, event, hub, signaller, load, counters));
    let regions = [
        Mapping::shared_ro(std::os::fd::AsFd::as_fd(&fds.down), geometry.down_bytes()).unwrap(),
        Mapping::shared_ro(std::os::fd::AsFd::as_fd(&fds.bulk), geometry.bulk_bytes()).unwrap(),
        Mapping::shared_rw(std::os::fd::AsFd::as_fd(&fds.up), geometry.up_bytes(), 0).unwrap(),
    ];
    let [down, bulk, up]: [NonNull<u8>; 3] = [regions[0].base(), regions[1].base(), regions[2].base()];
    // SAFETY: mapped as long as the geometry says, for as long as the value lives beside them; the only one on this memory.
    let end = unsafe { WorkerLane::new(Bases { down, bulk, up }, geometry) };
    (lane, Player { end, regions })
}

/// A call that has waited for long.
fn submit(lane: &Arc<Lane>, history: History) -> Ticket {
    submit_at(lane, history, 0)
}

fn submit_at(lane: &Arc<Lane>, history: History, submitted_ns: u64) -> Ticket {
    let reserved = lane.host.reserve(0).unwrap();
    lane.load().add();
    let (function, body_len, meta_len, flags) = (FUNCTION, 0, 0, 0);
    let (deadline_ns, submitted_cycles) = (u64::MAX, 0);
    lane.submit(
        reserved,
        &Request { function, body_len, meta_len, deadline_ns, flags, submitted_cycles },
        submitted_ns,
        history,
    )
}

/// A call that was due at this time.
pub(crate) fn submit_due(lane: &Arc<Lane>, deadline_ns: u64) -> Ticket {
    let reserved = lane.host.reserve(0).unwrap();
    lane.load().add();
    let (function, body_len, meta_len, flags) = (FUNCTION, 0, 0, 0);
    let request = Request { function, body_len, meta_len, deadline_ns, flags, submitted_cycles: 0 };
    lane.submit(reserved, &request, 0, History::new(0, false))
}

fn in_flight(lane: &Lane) -> usize {
    lane.host.in_flight().count()
}

/// Whether a call has left is not for its old worker to say, whatever that says or does.
#[test]
fn a_call_that_has_left_is_not_sent_on_again() {
    let (shared, lanes) = node(2);
    let [(from, player), (to, _)] = lanes.as_slice() else { panic!("two lanes") };
    shared.seats[1].open(Arc::clone(to));
    assert!(shared.hub.quotas.admit(0, 1));
    let call = submit(from, History::new(0, true));
    from.send_waiting(&shared, to);
    assert_eq!((in_flight(from), in_flight(to)), (1, 1));
    // Its owner has not looked yet.
    player.queue_again(call);
    from.send_waiting(&shared, to);
    assert_eq!((in_flight(from), in_flight(to)), (1, 1), "it is there already");
    from.shut_down(Shut::Lied);
    shared.see_to_orphans();
    assert_eq!((in_flight(from), in_flight(to)), (0, 1), "it is there already");
    assert_eq!((shared.stats().moves, shared.stats().retries), (1, 0));
    to.shut_down(Shut::Closed);
    let (lane, call) = from.follow(call).expect("it has left");
    assert!(Arc::ptr_eq(&lane, to));
    let outcome = lane.host.outcome(call).expect("it is over");
    lane.release(call, &outcome);
    assert_eq!((from.host.free_slots(), to.host.free_slots()), (SLOTS, SLOTS));
    assert!(shared.hub.quotas.admit(0, 1), "it has come back");
    assert!(!shared.hub.quotas.admit(0, 1), "once");
}

/// An owner lets go of its call and is held up before it looks where that went. Its slot is used again meanwhile, and that call leaves, too.
#[test]
fn a_slot_that_is_used_again_keeps_no_call_that_nobody_wants() {
    let (shared, mut lanes) = node(2);
    let (to, mut there) = lanes.pop().unwrap();
    let (from, mut here) = lanes.pop().unwrap();
    let first = submit(&from, History::new(0, false));
    from.send_waiting(&shared, &to);
    // The first half of `give_up`.
    from.abandon(first);
    assert!(here.answer(&[]));
    assert_eq!(from.drain(), 1);
    let second = submit(&from, History::new(0, false));
    assert_eq!((second.slot, second.generation), (first.slot, first.generation + 1));
    from.send_waiting(&shared, &to);
    // The second half.
    assert!(from.went.take(first).is_none());
    let (lane, second) = from.follow(second).expect("it has left");
    assert!(there.answer(&[]));
    assert!(there.answer(&[]));
    assert_eq!(to.drain(), 2);
    let outcome = lane.host.outcome(second).expect("it is over");
    lane.release(second, &outcome);
    assert_eq!(to.host.free_slots(), SLOTS, "nobody would ever take the first one's answer");
}

/// A call that the host itself keeps from being run is counted, as any other; one that its owner took back was counted then.
#[test]
fn calls_that_a_lane_is_shut_with_are_counted_once() {
    for (why, status) in [(Shut::Closed, Status::Cancelled), (Shut::NodeGone, Status::WorkerLost)] {
        let (shared, mut lanes) = node(1);
        let (lane, mut player) = lanes.pop().unwrap();
        let _ = submit(&lane, History::new(0, false));
        let started = submit(&lane, History::new(0, false));
        let taken_back = submit(&lane, History::new(0, false));
        let queued = player.end.pop().unwrap().unwrap();
        assert_eq!(player.end.start(&queued), Start::Yours);
        assert_eq!(lane.host.phase(started), Some(Phase::Queued));
        assert!(lane.give_up(taken_back).never_started);
        lane.shut_down(why);
        let counted = shared.hub.decided.of(FUNCTION);
        assert_eq!(counted[status as usize], 2, "{why:?}");
        assert_eq!(counted.iter().sum::<u64>(), 2);
    }
}

/// What is left in the ring of a lane that is read no more is nothing to wait for: who finds it there would look again and again.
#[test]
fn nobody_stays_awake_for_what_a_liar_has_left_in_its_ring() {
    let (shared, mut lanes) = node(1);
    let (lane, mut player) = lanes.pop().unwrap();
    shared.seats[0].open(Arc::clone(&lane));
    let call = submit(&lane, History::new(0, false));
    assert!(player.answer(&[]));
    let (slot, generation, status) = (call.slot, call.generation + 1, Status::Ok);
    let (body_len, meta_len, cpu_ns, overflow, is_unsafe) = (0, 0, 0, false, false);
    player.end.complete(&Completion {
        slot,
        generation,
        status,
        body_len,
        meta_len,
        overflow,
        is_unsafe,
        cpu_ns,
    });
    assert!(!shared.arm(), "an answer is there");
    assert_eq!(shared.poll(), 1);
    assert!(lane.has_lied());
    assert!(shared.arm(), "no more will come of it");
}

/// A call that cannot go, since its function is there no more, does not keep the others.
#[test]
fn what_waits_behind_a_long_call_goes_past_what_cannot() {
    let (shared, lanes) = node(2);
    let [(from, _), (to, _)] = lanes.as_slice() else { panic!("two lanes") };
    let can = submit(from, History::new(0, false));
    let cannot = submit_at(from, History::new(1, false), 1);
    from.send_waiting(&shared, to);
    assert!(from.went.has(can) && !from.went.has(cannot));
}

/// A call of the node's function in this lane, as callers submit it, which knows nothing of limits.
fn call(shared: &Shared, lane: &Arc<Lane>) -> crate::Call {
    let reserved = lane.host.reserve(0).unwrap();
    lane.load().add();
    let mut prepared = Prepared::new(Arc::clone(lane), reserved, 0);
    prepared.call(shared.names.resolve(0).unwrap(), History::new(0, false));
    prepared.submit(0, &[], None).unwrap()
}

/// An owner takes its call back and is held up. Its worker is found to lie meanwhile, so that nothing which lies there says whether the call was run: it may be run again, and is.
#[test]
fn what_was_taken_back_of_a_liar_and_runs_elsewhere_has_started() {
    let (shared, mut lanes) = node(2);
    let (to, mut there) = lanes.pop().unwrap();
    let (from, _here) = lanes.pop().unwrap();
    shared.seats[1].open(Arc::clone(&to));
    let ticket = submit(&from, History::new(0, false).of(shared.names.resolve(0).unwrap()));
    // The first half of what the owner does when time is up.
    let is_ours = from.host.take_back(ticket);
    assert!(is_ours);
    from.shut_down(Shut::Lied);
    shared.see_to_orphans();
    there.begin();
    assert_eq!((in_flight(&to), shared.stats().retries), (1, 1));
    // The second half.
    assert_eq!(from.let_go(ticket, is_ours), Parting { is_ours: false, never_started: false }, "it runs");
    to.shut_down(Shut::Closed);
    assert_eq!((from.host.free_slots(), to.host.free_slots()), (SLOTS, SLOTS));
}

/// It may have run what it was not to.
#[test]
fn what_is_taken_back_of_a_liar_is_not_certain_never_to_have_run() {
    let (shared, mut lanes) = node(1);
    let (lane, mut player) = lanes.pop().unwrap();
    let calls = [(); 2].map(|()| call(&shared, &lane));
    let [honest, liar] = calls;
    assert!(honest.cancel());
    assert!(player.next_function().is_some());
    lane.shut_down(Shut::Lied);
    assert!(!liar.cancel(), "it may have run");
    let counted = || shared.hub.decided.of(FUNCTION).iter().sum::<u64>();
    assert_eq!(counted(), 2, "whatever is known of them");
    shared.see_to_orphans();
    assert_eq!((counted(), lane.host.free_slots()), (2, SLOTS));
}

/// What is deployed while a call runs says nothing of what that call has done.
#[test]
fn a_call_is_run_again_only_where_it_might_be_when_it_was_submitted_and_still_may() {
    let (before, after) = ([true, true, false, false], [true, false, true, false]);
    for (before, after) in before.into_iter().zip(after) {
        let (shared, mut lanes) = node(2);
        let (to, mut there) = lanes.pop().unwrap();
        let (from, mut here) = lanes.pop().unwrap();
        shared.seats[1].open(Arc::clone(&to));
        let deploy = |is_idempotent| {
            let entry = shared.names.resolve(0).unwrap();
            shared.names.publish(&[Some(Entry { is_idempotent, ..entry })]);
        };
        deploy(before);
        let call = call(&shared, &from);
        here.begin();
        deploy(after);
        from.shut_down(Shut::Lost);
        shared.see_to_orphans();
        assert_eq!(there.answer(&[]), before && after, "{before} {after}");
        let status = if before && after { Status::Ok } else { Status::WorkerLost };
        assert_eq!(call.wait().status, status, "{before} {after}");
    }
}

/// A load that was begun is sooner done than another one, which would keep a second worker from its calls.
#[test]
fn what_waits_for_a_load_stays_unless_it_is_loaded_elsewhere() {
    let (shared, lanes) = node(2);
    let [(from, _), (to, _)] = lanes.as_slice() else { panic!("two lanes") };
    let calls: Vec<Ticket> = (0..2).map(|_| submit(from, History::new(0, false))).collect();
    let gone = || calls.iter().filter(|call| from.went.has(**call)).count();
    shared.stock.loads(0, [FUNCTION].into_iter());
    from.send_waiting(&shared, to);
    assert_eq!(gone(), 0);
    shared.stock.loaded(1, (5, 1), None, [FUNCTION].into_iter());
    from.send_waiting(&shared, to);
    assert_eq!(gone(), 1, "half of what waits");
    // Nothing is being loaded any more.
    shared.stock.unloaded(1, 5, false, [FUNCTION].into_iter());
    shared.stock.loaded(0, (5, 1), None, [FUNCTION].into_iter());
    from.send_waiting(&shared, to);
    assert_eq!(gone(), 2);
}

/// Moves a call while its owner leaves a waker, and counts how often that is woken.
struct Meddler {
    shared: Arc<Shared>,
    from: Arc<Lane>,
    to: Arc<Lane>,
    has_moved: AtomicBool,
    woken: AtomicU8,
}

impl Meddler {
    const CALLS: RawWakerVTable = RawWakerVTable::new(Self::clone, Self::wake, Self::wake, |_| ());

    fn of<'a>(data: *const ()) -> &'a Self {
        // SAFETY: the test's, which outlives all wakers.
        unsafe { data.cast::<Self>().as_ref() }.expect("a reference was made a pointer")
    }

    fn clone(data: *const ()) -> RawWaker {
        let me = Self::of(data);
        if !me.has_moved.swap(true, Ordering::Relaxed) {
            let call = me.from.host.in_flight().next().expect("a call");
            me.from.send_on(&me.shared, &mut me.from.lock(), call, false, Some(&me.to)).unwrap();
        }
        RawWaker::new(data, &Self::CALLS)
    }

    fn wake(data: *const ()) {
        Self::of(data).woken.fetch_add(1, Ordering::Relaxed);
    }
}

/// Who has left its waker where its call was is woken where it went.
#[test]
fn a_future_whose_call_moves_while_it_is_polled_is_woken() {
    let (shared, mut lanes) = node(2);
    let (to, mut there) = lanes.pop().unwrap();
    let (from, _here) = lanes.pop().unwrap();
    let reserved = from.host.reserve(0).unwrap();
    from.load().add();
    let mut prepared = Prepared::new(Arc::clone(&from), reserved, 0);
    prepared.call(shared.names.resolve(0).unwrap(), History::new(0, false));
    let mut call = pin!(prepared.submit(0, &[], None).unwrap());
    let (has_moved, woken) = (AtomicBool::new(false), AtomicU8::new(0));
    let meddler = Meddler { shared, from, to: Arc::clone(&to), has_moved, woken };
    // SAFETY: what the table does with the data is sound while `meddler` lives, which is dropped after all lanes' notes have forgotten it.
    let waker = unsafe { Waker::new((&raw const meddler).cast(), &Meddler::CALLS) };
    assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(meddler.has_moved.load(Ordering::Relaxed));
    let before = meddler.woken.load(Ordering::Relaxed);
    assert!(there.answer(&[]));
    assert_eq!(to.drain(), 1);
    assert!(meddler.woken.load(Ordering::Relaxed) > before, "it would sleep for ever");
    let Poll::Ready(completion) = call.poll(&mut Context::from_waker(&waker)) else { panic!("it is there") };
    assert_eq!(completion.status, Status::Ok);
}

/// What it is given it does not begin, however little it has to do.
#[test]
fn a_worker_that_is_about_to_end_gets_calls_only_where_there_is_no_other() {
    let (shared, lanes) = node(2);
    let [(leaving, _), (busy, _)] = lanes.as_slice() else { panic!("two lanes") };
    shared.seats[0].open(Arc::clone(leaving));
    shared.seats[1].open(Arc::clone(busy));
    for _ in 0..2 {
        submit(busy, History::new(0, false));
    }
    assert_eq!(shared.least_busy(), Some(0));
    shared.seats[0].load.leave();
    assert_eq!(shared.least_busy(), Some(1));
    shared.balance();
    assert_eq!((in_flight(leaving), in_flight(busy)), (0, 2));
    shared.seats[1].load.close();
    assert_eq!(shared.least_busy(), Some(0), "better than none");
    shared.seats[1].open(Arc::clone(busy));
    shared.seats[0].open(Arc::clone(leaving));
    assert_eq!(shared.least_busy(), Some(0), "the next one stays");
    shared.balance();
    assert_eq!(
        (in_flight(leaving), in_flight(busy)),
        (1, 2),
        "half of what waits, which its owner has still to take from there"
    );
}
