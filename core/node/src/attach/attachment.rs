//! The one thread of an attached host that fills the seats with lanes: what the supervisor is in a node.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use microfaas_control::attach::{self, Complaint, FDS_MAX, FromHost, ToHost};
use microfaas_control::{PACKET_BYTES_MAX, decode, encode};
use microfaas_lane::layout::Geometry;
use microfaas_sys::clock::monotonic_ns;
use microfaas_sys::{eventfd, poll, socket};

use crate::attach::ConnectError;
use crate::attach::mirror::Mirror;
use crate::attach::session::{Letter, Session};
use crate::call::nanoseconds;
use crate::completion::printable;
use crate::hub::Hub;
use crate::lane::{Lane, Shut};
use crate::lapse::Lapse;
use crate::memory::{LaneMemory, RegionFds};
use crate::node::Shared;
use crate::seat::{Seat, WorkerState};
use crate::{Node, watch};

/// How long lanes to all workers may take at first.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// Between attempts to attach again, at first and at last.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// While calls are to end before the host goes: how often it looks.
const DRAIN_LOOK: Duration = Duration::from_millis(2);
/// Between two complaints about a worker that hangs, at least.
const COMPLAINS_EACH: Duration = Duration::from_millis(100);
/// Packets taken before the calls are looked at.
const PACKETS: usize = 64;

/// A lane, from its offer to its end.
#[derive(Debug)]
struct Held {
    lane: Arc<Lane>,
    open: bool,
    /// The node was told that its worker lies.
    told: bool,
    /// When the node was last told that its worker hangs.
    told_that_it_hangs: Option<Instant>,
}

impl Held {
    fn new(lane: Lane) -> Self {
        Self { lane: Arc::new(lane), open: false, told: false, told_that_it_hangs: None }
    }
}

/// A connection that was let in.
#[derive(Debug)]
struct Live {
    socket: OwnedFd,
    stall_ns: u64,
    lapse: Lapse,
    lanes: BTreeMap<u64, Held>,
    /// The node is shutting down.
    closing: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Attachment {
    shared: Arc<Shared>,
    path: PathBuf,
    mirror: Mirror,
    live: Option<Live>,
    pause: Duration,
    next_attempt: Instant,
    /// Until every worker's lane is there for the first time.
    started: Option<SyncSender<Result<(), ConnectError>>>,
}

/// Attaches to the node at `path`.
pub(crate) fn connect(path: &Path) -> Result<Node, ConnectError> {
    let session = Session::open(path, || true)?;
    let failed = |what| move |source| ConnectError::System { what, source };
    let hub = Hub::new(session.welcome.spin_ns).map_err(failed("cannot make the event descriptors"))?;
    let seats = (0..session.welcome.workers).map(|index| Seat::new(index, None)).collect();
    let (shared, _) = Shared::new(seats, Arc::new(hub));
    let mut mirror = Mirror::default();
    mirror.show(&shared, &session.functions).map_err(failed("cannot use the node's table of functions"))?;
    let (started, outcome) = sync_channel(1);
    let attachment = Attachment {
        shared: Arc::clone(&shared),
        path: path.to_owned(),
        mirror,
        live: Some(Live::new(session)),
        pause: PAUSE_MIN,
        next_attempt: Instant::now(),
        started: Some(started),
    };
    let thread = std::thread::Builder::new()
        .name("microfaas-host".into())
        .spawn(move || attachment.run())
        .map_err(failed("cannot start the host's thread"))?;
    let node = Node::new(shared, thread);
    let silent = || ConnectError::Silent { path: path.to_owned(), seconds: READY_WITHIN.as_secs() };
    outcome.recv_timeout(READY_WITHIN).unwrap_or_else(|_| Err(silent()))?;
    Ok(node)
}

impl Live {
    fn new(session: Session) -> Self {
        let Session { socket, welcome, .. } = session;
        let stall_ns = welcome.stall_ns;
        let lapse = Lapse::new(Duration::from_nanos(stall_ns), Instant::now());
        Self { socket, stall_ns, lapse, lanes: BTreeMap::new(), closing: false }
    }

    /// The node reads at once, so it does not wait long where there is no room.
    fn say(&self, message: &FromHost) -> io::Result<()> {
        let packet = encode(message).map_err(io::Error::other)?;
        socket::send(self.socket.as_fd(), &packet, &[])
    }

    /// The next packet, if there is one; without its descriptors where this process cannot take them all.
    fn hear(&self, buffer: &mut [u8]) -> io::Result<Option<Letter>> {
        match socket::try_recv_what_fits(self.socket.as_fd(), buffer, FDS_MAX) {
            Ok(packet) if packet.len == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(packet) if packet.lost_fds => {
                let message = decode(&buffer[..packet.len]).map_err(io::Error::other)?;
                Ok(Some((message, Vec::new())))
            }
            Ok(packet) => decode(&buffer[..packet.len])
                .map(|message| Some((message, packet.fds)))
                .map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Attachment {
    /// Runs until the host shuts its end down. No call is on its way then.
    fn run(mut self) {
        loop {
            let stop_by = self.shared.stop_by();
            if stop_by.is_some_and(|time| self.shared.drained_by(time)) {
                break;
            }
            self.shared.rounds.fetch_add(1, Ordering::Relaxed);
            self.attach_again();
            self.wait(stop_by.is_some());
            if let Err(error) = self.listen() {
                self.lose(&error);
            }
            if self.live.as_ref().is_some_and(|live| live.closing) && !self.shared.calls_are_out() {
                self.lose(&io::Error::other("the node is shutting down"));
            }
            self.shared.see_to_orphans();
            self.shared.balance();
            // For a worker that does not ring, and an event loop that has stopped in the middle.
            self.shared.poll();
            if let Some(live) = self.live.as_ref().filter(|live| live.closing) {
                // Nobody else looks at these.
                for held in live.lanes.values() {
                    held.lane.drain();
                }
            }
        }
        self.end();
    }

    /// Answers what is left.
    fn end(&mut self) {
        self.drop_lanes(Shut::Closed);
        self.shared.hub.orphans.end();
        for seat in &self.shared.seats {
            seat.update(|info| (info.pid, info.state) = (None, WorkerState::Stopped));
        }
        self.shared.hub.wake_event_loop();
    }

    /// Tries to attach where there is no connection and it is time.
    fn attach_again(&mut self) {
        if self.live.is_some() || self.shared.is_closed() || Instant::now() < self.next_attempt {
            return;
        }
        match Session::open(&self.path, || !self.shared.is_closed()) {
            Ok(session) if let Err(error) = self.mirror.show(&self.shared, &session.functions) => {
                tracing::error!(path = %self.path.display(), %error, "the node cannot be used");
                self.next_attempt = Instant::now() + PAUSE_MAX;
            }
            Ok(session) => {
                tracing::info!(path = %self.path.display(), "attached to the node again");
                self.live = Some(Live::new(session));
                self.pause = PAUSE_MIN;
            }
            Err(error) => {
                tracing::debug!(%error, "no node to attach to");
                self.next_attempt = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
        }
    }

    fn wait(&mut self, draining: bool) {
        self.notice_lapse();
        let due = watch::watch(&self.shared.hub, || self.live.as_mut().map_or(u64::MAX, next_due));
        let now = Instant::now();
        let calls = (due != u64::MAX).then(|| Duration::from_nanos(due.saturating_sub(monotonic_ns())));
        let attempt = self.live.is_none().then(|| self.next_attempt.saturating_duration_since(now));
        let insurance = self.shared.look_within();
        let closing = draining || self.live.as_ref().is_some_and(|live| live.closing);
        let look = closing.then_some(DRAIN_LOOK);
        let timeout = calls.into_iter().chain(attempt).chain(insurance).chain(look).min();
        if let Some(live) = &mut self.live {
            live.lapse.sleeps(now, timeout);
        }
        let mut fds = vec![self.shared.hub.supervisor()];
        fds.extend(self.live.as_ref().map(|live| live.socket.as_fd()));
        let mut ready = [false; 2];
        if let Err(error) = poll::readable(&fds, &mut ready, timeout) {
            tracing::error!(%error, "the host's thread cannot wait");
            std::thread::sleep(DRAIN_LOOK);
        }
        if ready[0] {
            let _ = eventfd::drain(self.shared.hub.supervisor());
        }
        self.notice_lapse();
    }

    /// Where this process, and maybe its node, has stood still, no worker is judged for a while.
    fn notice_lapse(&mut self) {
        if let Some(live) = &mut self.live
            && live.lapse.wakes(Instant::now())
        {
            tracing::warn!("the host's thread was stopped for a while, and so may all workers have been");
        }
    }

    /// Takes what the node has said.
    fn listen(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        for _ in 0..PACKETS {
            let Some(live) = &mut self.live else { return Ok(()) };
            let Some((message, fds)) = live.hear(&mut buffer)? else { return Ok(()) };
            match message {
                ToHost::Offer { lane, worker, geometry } => {
                    if let Some(source) = live.map(&self.shared, lane, worker, geometry, fds)?
                        && let Some(started) = self.started.take()
                    {
                        // Who starts wants to know it at once.
                        let what = "cannot take a lane to a worker";
                        let _ = started.send(Err(ConnectError::System { what, source }));
                    }
                }
                ToHost::Open { lane } => live.open(&self.shared, lane),
                ToHost::Gone { lane, reason } => {
                    tracing::debug!(lane, reason = printable(reason.as_bytes()), "a lane has gone");
                    if let Some(held) = live.lanes.remove(&lane) {
                        close(&self.shared, &held.lane, Shut::Lost);
                    }
                }
                ToHost::Worker(news) => note(&self.shared, news),
                ToHost::Ready => {
                    if let Some(started) = self.started.take() {
                        // The starter waits for exactly this, unless it has given up.
                        let _ = started.send(Ok(()));
                    }
                }
                ToHost::Closing => {
                    live.closing = true;
                    self.shared.seats.iter().for_each(|seat| drop(seat.close()));
                }
                ToHost::Refused { reason } => return Err(io::Error::other(printable(reason.as_bytes()))),
                ToHost::Functions { first, last, functions } => {
                    self.mirror.receive(&self.shared, first, last, functions)?;
                }
                ToHost::Welcome(_) | ToHost::Admin { .. } => {
                    return Err(io::Error::other("the node said something that does not belong there"));
                }
            }
        }
        Ok(())
    }

    /// The connection is over: what is in flight is settled, and the next attempt comes soon.
    fn lose(&mut self, error: &io::Error) {
        tracing::warn!(path = %self.path.display(), %error, "the node is gone");
        // One that has said that it stops has ended what is left of the calls when their time was up.
        let is_closing = self.live.as_ref().is_some_and(|live| live.closing);
        self.drop_lanes(if is_closing { Shut::Closed } else { Shut::NodeGone });
        self.live = None;
        self.next_attempt = Instant::now() + self.pause;
        for seat in &self.shared.seats {
            seat.update(|info| (info.pid, info.state) = (None, WorkerState::BackingOff));
        }
        if let Some(started) = self.started.take() {
            let reason = printable(error.to_string().as_bytes());
            let _ = started.send(Err(ConnectError::Refused { path: self.path.clone(), reason }));
        }
    }

    fn drop_lanes(&mut self, why: Shut) {
        let Some(live) = &mut self.live else { return };
        for held in std::mem::take(&mut live.lanes).into_values() {
            close(&self.shared, &held.lane, why);
        }
    }
}

impl Drop for Attachment {
    /// A bug in here is the end of the host's attachment, and not of its callers: every call is answered.
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the host's thread has panicked, it is attached no more");
            self.shared.closed.store(true, Ordering::Relaxed);
            // The same bug may be met again on the way; a panic that left this would end the whole process.
            let end = std::panic::AssertUnwindSafe(|| self.end());
            if std::panic::catch_unwind(end).is_err() {
                self.shared.hub.orphans.end();
            }
        }
    }
}

impl Live {
    /// Maps an offered lane, or says why not: calls on other lanes are not to end for it. What this process could not do, it returns.
    fn map(
        &mut self,
        shared: &Arc<Shared>,
        lane: u64,
        worker: u32,
        geometry: Geometry,
        fds: Vec<OwnedFd>,
    ) -> io::Result<Option<io::Error>> {
        let Some(seat) = shared.seats.get(worker as usize) else {
            // The node has been restarted with more workers than it had.
            return self.say(&FromHost::Complaint { lane, about: Complaint::Unwanted }).map(|()| None);
        };
        geometry.check().map_err(io::Error::other)?;
        match take(shared, seat, worker, geometry, fds) {
            Ok(made) => {
                self.lanes.insert(lane, Held::new(made));
                self.say(&FromHost::Mapped { lane }).map(|()| None)
            }
            Err(error) => {
                tracing::warn!(worker, %error, "a lane to a worker cannot be taken now");
                self.say(&FromHost::Complaint { lane, about: Complaint::Untaken })?;
                Ok(Some(error))
            }
        }
    }

    fn open(&mut self, shared: &Shared, lane: u64) {
        let Some(held) = self.lanes.get_mut(&lane) else { return };
        held.open = true;
        if !self.closing {
            let worker = held.lane.worker as usize;
            // It is another process, for all that is known.
            shared.stock.leaves(worker);
            shared.seats[worker].open(Arc::clone(&held.lane));
        }
    }
}

/// Makes a lane of what has come with its offer.
fn take(
    shared: &Arc<Shared>,
    seat: &Seat,
    worker: u32,
    geometry: Geometry,
    fds: Vec<OwnedFd>,
) -> io::Result<Lane> {
    let [event, down, bulk, up, process] = <[OwnedFd; FDS_MAX]>::try_from(fds)
        .map_err(|fds| io::Error::other(format!("{} descriptors with a lane, not {FDS_MAX}", fds.len())))?;
    let memory = LaneMemory::map(geometry, RegionFds { down, bulk, up })?;
    shared.hub.listen(event.as_fd())?;
    let (hub, load, counters) = (Arc::clone(&shared.hub), Arc::clone(&seat.load), Arc::clone(&seat.counters));
    Ok(Lane::new(memory, worker, event, hub, process.into(), load, counters))
}

/// Takes a lane out of use, and settles what is in flight on it.
fn close(shared: &Shared, lane: &Arc<Lane>, why: Shut) {
    let seat = &shared.seats[lane.worker as usize];
    if seat.lane().is_some_and(|open| Arc::ptr_eq(&open, lane)) {
        seat.close();
    }
    lane.shut_down(why);
}

/// What is due next; tells the node of what is wrong.
fn next_due(live: &mut Live) -> u64 {
    let now = Instant::now();
    let grace = live.lapse.grace(now);
    // A node that has stood still says nothing to a complaint at first.
    let again = Duration::from_nanos(live.stall_ns).max(COMPLAINS_EACH);
    let in_ns = |time: Duration| monotonic_ns().saturating_add(nanoseconds(time));
    let mut next = grace.map_or(u64::MAX, in_ns);
    let mut complaints = Vec::new();
    for (number, held) in live.lanes.iter_mut().filter(|(_, held)| held.open) {
        if held.lane.is_shut() {
            // Found lying by a caller.
            held.lane.hub.orphans.add(&held.lane);
            if !std::mem::replace(&mut held.told, true) {
                complaints.push((*number, Complaint::Violation));
            }
            continue;
        }
        let look = watch::look(&held.lane, live.stall_ns);
        next = next.min(look.next_ns);
        if look.hung.is_none() || grace.is_some() {
            continue;
        }
        let left = held.told_that_it_hangs.map(|told| again.saturating_sub(now.duration_since(told)));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            next = next.min(in_ns(left));
            continue;
        }
        held.told_that_it_hangs = Some(now);
        next = next.min(in_ns(again));
        tracing::warn!(worker = held.lane.worker, "worker hangs in a call, the node is told");
        complaints.push((*number, Complaint::Hangs));
    }
    for (lane, about) in complaints {
        // A connection that is broken is noticed when it is read.
        let _ = live.say(&FromHost::Complaint { lane, about });
    }
    next
}

fn note(shared: &Shared, news: attach::Worker) {
    let Some(seat) = shared.seats.get(news.index as usize) else { return };
    seat.update(|info| {
        (info.pid, info.cpu) = (news.pid, news.cpu);
        (info.generation, info.restarts) = (news.generation, news.restarts);
        info.state = if news.pid.is_some() { WorkerState::Serving } else { WorkerState::Starting };
    });
    seat.sealed(news.sandbox);
}

#[cfg(test)]
mod tests {
    use microfaas_lane::Status;

    use super::*;
    use crate::moves::tests::node;
    use crate::{CallError, FunctionHandle};

    /// As after a pause of the machine: neither the host's thread nor the worker has run.
    #[test]
    fn who_has_stood_still_complains_of_nobody_at_first() {
        let (_shared, mut lanes) = node(1);
        let (lane, mut worker) = lanes.remove(0);
        let (near, far) = socket::pair().unwrap();
        crate::moves::tests::submit_due(&lane, 1);
        worker.begin();
        let held = Held { lane, open: true, told: false, told_that_it_hangs: None };
        let stall = Duration::from_millis(200);
        let long_ago = Instant::now() - 10 * stall;
        let mut live = Live {
            socket: near,
            stall_ns: nanoseconds(stall),
            lapse: Lapse::new(stall, long_ago),
            lanes: BTreeMap::from([(1, held)]),
            closing: false,
        };
        let mut buffer = [0; 256];
        let mut complaints = |live: &mut Live| {
            let next = next_due(live);
            assert!(next < u64::MAX, "it looks again");
            socket::try_recv(far.as_fd(), &mut buffer, 0).is_ok()
        };
        live.lapse = Lapse::new(Duration::from_secs(3600), long_ago - Duration::from_secs(7200));
        assert!(live.lapse.wakes(Instant::now()));
        assert!(!complaints(&mut live), "in its grace");
        live.lapse = Lapse::new(stall, Instant::now());
        assert!(complaints(&mut live));
        live.lanes.get_mut(&1).unwrap().told_that_it_hangs = Some(long_ago);
        assert!(complaints(&mut live), "once more where nothing came of it");
    }

    /// As where this process is out of descriptors.
    #[test]
    fn who_starts_learns_at_once_why_no_lane_can_be_taken() {
        let (shared, _) = node(1);
        let (near, far) = socket::pair().unwrap();
        let offer = ToHost::Offer { lane: 1, worker: 0, geometry: Geometry::default() };
        socket::send(far.as_fd(), &encode(&offer).unwrap(), &[]).unwrap();
        let lapse = Lapse::new(Duration::ZERO, Instant::now());
        let live = Live { socket: near, stall_ns: 0, lapse, lanes: BTreeMap::new(), closing: false };
        let (started, outcome) = sync_channel(1);
        let mut attachment = Attachment {
            shared,
            path: PathBuf::new(),
            mirror: Mirror::default(),
            live: Some(live),
            pause: PAUSE_MIN,
            next_attempt: Instant::now(),
            started: Some(started),
        };
        attachment.listen().unwrap();
        assert!(matches!(outcome.try_recv(), Ok(Err(ConnectError::System { .. }))));
        let packet = socket::try_recv(far.as_fd(), &mut [0; 256], 0).unwrap();
        assert!(packet.len > 0, "the node is told, too");
    }

    #[test]
    fn a_panic_answers_every_call() {
        let (shared, mut lanes) = node(1);
        let (lane, mut worker) = lanes.remove(0);
        shared.seats[0].open(Arc::clone(&lane));
        let (near, far) = socket::pair().unwrap();
        let held = Held { lane, open: true, told: false, told_that_it_hangs: None };
        let lapse = Lapse::new(Duration::ZERO, Instant::now());
        let lanes = BTreeMap::from([(1, held)]);
        let live = Live { socket: near, stall_ns: 0, lapse, lanes, closing: false };
        let attachment = Attachment {
            shared: Arc::clone(&shared),
            path: PathBuf::new(),
            mirror: Mirror::default(),
            live: Some(live),
            pause: PAUSE_MIN,
            next_attempt: Instant::now(),
            started: None,
        };
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _attachment = attachment;
            let _ = wait.recv();
            std::panic::resume_unwind(Box::new("a bug"));
        });
        let node = Node::new(shared, thread);
        let handle = FunctionHandle { node: node.shared().id, id: 0 };
        let call = node.submit(handle, b"x".as_slice().into()).unwrap();
        worker.begin();
        drop(go);
        assert_eq!(call.wait().status, Status::Cancelled);
        assert!(matches!(node.submit(handle, b"x".as_slice().into()), Err(CallError::Closed)));
        // The node learns it by the end of the connection.
        assert_eq!(socket::recv(far.as_fd(), &mut [0; 8], 0, None).unwrap().len, 0);
    }
}
