//! The one thread of an attached host that fills the seats with lanes: what the supervisor is in a node.

mod lanes;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use microfaas_control::PACKET_BYTES_MAX;
use microfaas_control::attach::{self, ToHost};
use microfaas_sys::clock::monotonic_ns;
use microfaas_sys::{eventfd, poll};

use self::lanes::{Live, close, next_due};
use crate::attach::ConnectError;
use crate::attach::mirror::Mirror;
use crate::attach::session::Session;
use crate::completion::printable;
use crate::hub::Hub;
use crate::lane::Shut;
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
/// Packets taken before the calls are looked at.
const PACKETS: usize = 64;

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
    let mut session = Session::open(path, || true)?;
    let failed = |what| move |source| ConnectError::System { what, source };
    let hub = Hub::new(session.welcome.spin_ns).map_err(failed("cannot make the event descriptors"))?;
    hub.decided.tell(session.ledger.take());
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
            Ok(mut session) => {
                self.shared.hub.decided.tell(session.ledger.take());
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

fn note(shared: &Shared, news: attach::Worker) {
    let Some(seat) = shared.seats.get(news.index as usize) else { return };
    seat.update(|info| {
        (info.pid, info.cpu) = (news.pid, news.cpu);
        (info.generation, info.restarts) = (news.generation, news.restarts);
        info.state = if news.pid.is_some() { WorkerState::Serving } else { WorkerState::Starting };
    });
    seat.sealed(news.sandbox);
}
