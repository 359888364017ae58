//! Everything at once: calls that are waited for, polled, awaited, taken back, dropped and late, while they are moved between two workers, of which one dies again and again.

use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicUsize};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use microfaas_sys::futex;

use super::tests::{FUNCTION, Player, SLOTS, lane, node};
use super::*;
use crate::call::Prepared;
use crate::lane::Shut;
use crate::{Call, Completion};

const OWNERS: usize = 2;
const CALLS: usize = if cfg!(miri) { 50 } else { 2_000 };
/// Of the function, more than there are slots.
const LIMIT: u32 = 100;

/// What is known of each call: how often it was run.
type Runs = Vec<AtomicU8>;

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Does it when it is dropped: a failure of one thread ends all.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        self.0();
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn submit(shared: &Shared, id: usize, deadline: Duration, seed: &mut u64) -> Option<Call> {
    let lane = shared.seats[usize::from(random(seed) & 1 == 0)].lane()?;
    let reserved = lane.host.reserve(8).ok()?;
    lane.load().add();
    let mut prepared = Prepared::new(lane, reserved, 8);
    let entry = shared.names.resolve(0)?;
    assert!(shared.hub.quotas.admit(0, LIMIT), "a limit that was never reached");
    prepared.call(entry, History::new(0, true));
    prepared.buffer().copy_from_slice(&id.to_le_bytes());
    Some(prepared.submit(8, &[], Some(deadline)).unwrap())
}

/// How a future is driven without a runtime: the mover drains all lanes, as a supervisor does.
fn block_on(call: Call) -> Completion {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut call = pin!(call);
    loop {
        if let Poll::Ready(completion) = call.as_mut().poll(&mut Context::from_waker(&waker)) {
            return completion;
        }
        std::thread::park();
    }
}

/// Makes calls and ends them in all ways, as long as the node takes any. Whatever is accepted has one end, and that is told as it was. Returns how many.
fn own(shared: &Shared, runs: &Runs, first: usize) -> usize {
    let mut seed = first as u64;
    for (id, runs) in (first..).zip(&runs[first..first + CALLS]) {
        let late = random(&mut seed).is_multiple_of(8);
        let deadline =
            if late { Duration::from_nanos(1 + random(&mut seed) % 50_000) } else { Duration::MAX };
        let mut call = loop {
            match submit(shared, id, deadline, &mut seed) {
                Some(call) => break call,
                None if shared.is_closed() => return id - first,
                None => std::thread::yield_now(),
            }
        };
        let ran = || runs.load(Ordering::Relaxed);
        let completion = match random(&mut seed) % 6 {
            0 => {
                drop(call);
                continue;
            }
            1 => {
                assert!(!call.cancel() || ran() == 0, "{id} had not started, and was run");
                continue;
            }
            2 => loop {
                if let Some(completion) = call.try_take() {
                    break completion;
                }
                std::thread::yield_now();
            },
            3 => block_on(call),
            _ => call.wait(),
        };
        match completion.status {
            Status::Ok => assert_eq!(ran(), 1, "{id} was answered"),
            Status::Expired if late => assert_eq!(ran(), 0, "{id} had not started"),
            Status::Timeout if late => {}
            // It has been moved too often, or begun twice by workers that died.
            Status::WorkerLost => assert_eq!(ran(), 0, "{id} was lost"),
            // The end of the node has come before its own.
            Status::Cancelled if shared.is_closed() => {
                assert!(!completion.never_started || ran() == 0, "{id} had not started");
            }
            status => panic!("{id}: {status:?} {}", completion.detail),
        }
    }
    CALLS
}

/// A worker, until all owners are done and nothing is left.
fn play(player: &Mutex<Player>, lane: impl Fn() -> Option<Arc<Lane>>, runs: &Runs, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let answered = {
            let mut player = player.lock().unwrap();
            let answered = player.answer(runs);
            if answered
                && player.rings()
                && let Some(lane) = lane()
            {
                let _ = futex::wake_all(lane.host.worker_words().host_bell.word().as_std());
            }
            answered
        };
        if !answered {
            std::thread::yield_now();
        }
    }
}

fn is_as_new(lane: &Arc<Lane>) -> bool {
    (lane.host.in_flight().count(), lane.host.free_slots()) == (0, SLOTS)
}

#[test]
fn every_call_has_one_end_and_leaves_nothing() {
    stress(u32::MAX);
}

#[test]
fn every_call_has_one_end_when_the_node_ends() {
    for rounds in [1, 10, 100, 300, 1000] {
        stress(rounds);
    }
}

/// The node ends after so many rounds.
fn stress(rounds: u32) {
    let (shared, lanes) = node(2);
    let mut players = Vec::new();
    for (seat, (lane, player)) in shared.seats.iter().zip(lanes) {
        seat.open(lane);
        players.push(Mutex::new(player));
    }
    let runs: Runs = (0..OWNERS * CALLS).map(|_| AtomicU8::new(0)).collect();
    let (over, left, accepted) = (AtomicBool::new(false), AtomicUsize::new(OWNERS), AtomicUsize::new(0));
    let mut dead: Vec<Arc<Lane>> = Vec::new();
    std::thread::scope(|scope| {
        for (player, seat) in players.iter().zip(&shared.seats) {
            scope.spawn(|| play(player, || seat.lane(), &runs, &over));
        }
        for owner in 0..OWNERS {
            let (shared, runs, left, accepted) = (&shared, &runs, &left, &accepted);
            scope.spawn(move || {
                let _left = Finally(|| {
                    left.fetch_sub(1, Ordering::Relaxed);
                });
                accepted.fetch_add(own(shared, runs, owner * CALLS), Ordering::Relaxed);
            });
        }
        let _over = Finally(|| over.store(true, Ordering::Relaxed));
        let mut round = 0_u32;
        while left.load(Ordering::Relaxed) > 0 || shared.calls_are_out() {
            let now: Vec<_> = shared.lanes().collect();
            for (from, to) in now.iter().zip(now.iter().rev()) {
                let mut reader = from.lock();
                from.drain_with(&mut reader, None);
                for call in from.host.in_flight().collect::<Vec<_>>() {
                    if from.host.phase(call) == Some(Phase::Queued) && !from.note(call).history().has_left() {
                        let _ = from.send_on(&shared, &mut reader, call, false, Some(to));
                    }
                }
            }
            shared.poll();
            for lane in &now {
                let _ = crate::watch::look(lane, u64::MAX);
            }
            round += 1;
            if round == rounds {
                // As the supervisor ends.
                shared.closed.store(true, Ordering::Relaxed);
                for seat in &shared.seats {
                    let lane = seat.close().expect("a lane");
                    lane.shut_down(Shut::Closed);
                    dead.push(lane);
                }
                shared.hub.orphans.end();
            } else if round.is_multiple_of(200) && !shared.is_closed() {
                // One worker dies, or is found to lie, and the next one takes its place.
                let mut player = players[1].lock().unwrap();
                player.begin();
                let lost = shared.seats[1].close().expect("a lane");
                lost.shut_down(if round.is_multiple_of(400) { Shut::Lied } else { Shut::Lost });
                dead.push(lost);
                let (next, plays) = lane(&shared, 1);
                *player = plays;
                shared.seats[1].open(next);
            }
            shared.see_to_orphans();
            dead.retain(|lane| !is_as_new(lane));
            std::thread::yield_now();
        }
    });
    assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) < 2), "nothing is run twice");
    assert!(shared.lanes().chain(dead).all(|lane| is_as_new(&lane)), "no slot is lost");
    assert!((0..LIMIT).all(|_| shared.hub.quotas.admit(0, LIMIT)), "the whole limit is there");
    assert!(!shared.hub.quotas.admit(0, LIMIT), "and no more");
    let (stats, calls) = (shared.stats(), accepted.into_inner() as u64);
    // Each is counted when it comes back: those that were taken back, too.
    assert_eq!(stats.accepted(), calls);
    let ran = runs.iter().filter(|runs| runs.load(Ordering::Relaxed) == 1).count() as u64;
    let counted = ran + shared.hub.decided.of(FUNCTION).iter().sum::<u64>();
    if shared.is_closed() {
        // What a worker answered at the last moment counts as lost.
        assert!(counted >= calls, "{counted} of {calls}");
    } else {
        // What was not run, the host itself has counted, if it was not the worker that found it taken back.
        assert_eq!(counted, calls);
        assert!(stats.moves > 0);
    }
}
