//! The one thread that starts workers, watches them, and replaces them. It lives as long as the node: workers die with the thread that
//! started them (see `microfaas_sys::process::spawn`), so no worker outlives its node.
//!
//! It sleeps until something happens: a worker ends (its process descriptor), says something (its control socket), a caller found it lying or
//! set an early deadline (the hub's descriptor), or a call is overdue. It waits for no process: those that were killed are reaped when they have ended.

mod clock;
mod place;
#[cfg(test)]
mod tests;
mod trial;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use microfaas_sys::process::{Exit, Process};
use microfaas_sys::{eventfd, poll, slice};

use self::place::Place;
use crate::command::{AskError, Asker, Command, tell};
use crate::lane::Shut;
use crate::lapse::Lapse;
use crate::launch::{Launch, Plan, Role};
use crate::node::Shared;
use crate::restart::Restarts;
use crate::rollout::{Rollout, STAYED_BYTES_MAX};
use crate::seat::WorkerState;
use crate::spare::Spares;
use crate::{LaunchError, NodeError};

/// While the node waits for calls to end before it stops: how often it looks.
const DRAIN_LOOK: Duration = Duration::from_millis(2);
/// Slices of this thread and of the workers, who inherit them. They sleep until something happens, and then every core may be taken by threads that compute: with slices
/// like theirs they would wait for up to a tick of the kernel, at each step of a replacement.
const SLICE: Duration = Duration::from_micros(200);

/// How long workers may show nothing, and how many there are beside those that serve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Of a call that is overdue.
    pub(crate) stall_ns: u64,
    /// Of anything, with calls in hand.
    pub(crate) heartbeat: Duration,
    /// How many of their ends within ten seconds are made good at once.
    pub(crate) restarts: u32,
    /// Processes that are to be ready to take a place.
    pub(crate) spares: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    plan: Plan,
    rollout: Rollout,
    patience: Patience,
    places: Vec<Place>,
    restarts: Vec<Restarts>,
    lapse: Lapse,
    spares: Spares,
    inbox: Receiver<Command>,
    /// The process in which the modules of this deployment are tried out.
    trial: Option<(u64, Box<Launch>)>,
    /// Processes that were killed, or have ended by themselves, and are to be reaped.
    dying: Vec<Process>,
    /// Those that have ended while somebody traces them: they are his until he lets go of them, which nothing tells.
    held: Vec<Process>,
    /// Places whose last worker's counts are to be added to theirs, when there is time.
    unfolded: Vec<usize>,
    /// Until every worker has served once.
    started: Option<SyncSender<Result<(), NodeError>>>,
    /// Why the start has failed; everything ends after this round.
    failure: Option<NodeError>,
}

/// Whose descriptors are ready.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Place(usize),
    Trial,
    /// The spare with this process id.
    Spare(u32),
}

impl Supervisor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        plan: Plan,
        rollout: Rollout,
        patience: Patience,
        inbox: Receiver<Command>,
        started: SyncSender<Result<(), NodeError>>,
    ) -> Self {
        let restarts = shared.seats.iter().map(|_| Restarts::new(patience.restarts)).collect();
        let now = Instant::now();
        let places = shared.seats.iter().map(|_| Place::Pausing(now)).collect();
        Self {
            shared,
            plan,
            rollout,
            patience,
            places,
            restarts,
            lapse: Lapse::new(Duration::from_nanos(patience.stall_ns), now),
            spares: Spares::new(patience.spares, patience.restarts),
            inbox,
            trial: None,
            dying: Vec::new(),
            held: Vec::new(),
            unfolded: Vec::new(),
            started: Some(started),
            failure: None,
        }
    }

    /// Runs until the node is shut down or could not be started. No worker is left then.
    pub(crate) fn run(mut self) {
        if let Err(error) = slice::shorten(SLICE) {
            tracing::info!(%error, "the kernel refuses short slices, workers are replaced more slowly on busy cores");
        }
        let mut outcome = self.start_all();
        while outcome.is_ok() {
            let stop_by = self.shared.stop_by();
            if stop_by.is_some_and(|time| self.shared.drained_by(time)) {
                break;
            }
            self.shared.rounds.fetch_add(1, Ordering::Relaxed);
            self.report_if_all_serve();
            self.wait_and_act(stop_by.is_some());
            outcome = self.failure.take().map_or(Ok(()), Err);
        }
        self.stop_all();
        if outcome.is_err() {
            self.report(outcome);
        }
    }

    fn report(&mut self, outcome: Result<(), NodeError>) {
        if let Some(started) = self.started.take() {
            // The starter waits for exactly this.
            let _ = started.send(outcome);
        }
    }

    fn start_all(&mut self) -> Result<(), NodeError> {
        (0..self.places.len()).try_for_each(|index| self.fill(index).map_err(|source| failed(index, source)))
    }

    fn report_if_all_serve(&mut self) {
        if self.started.is_some()
            && self.places.iter().all(|place| matches!(place, Place::Serving { open: true, .. }))
        {
            self.spares.rest();
            self.report(Ok(()));
        }
    }

    /// Sleeps until there is something to do, and does it.
    fn wait_and_act(&mut self, draining: bool) {
        self.notice_lapse();
        let deadline = self.watch_calls();
        let timeout = if draining { Some(DRAIN_LOOK) } else { self.timeout(deadline) };
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.shared.hub.supervisor()];
        let mut whose = Vec::new();
        let places = self.places.iter().enumerate();
        let places = places.filter_map(|(i, place)| Some((Whose::Place(i), place.descriptors()?)));
        let trial = self.trial.iter().map(|(_, trial)| (Whose::Trial, trial.descriptors()));
        let spares = self.spares.descriptors();
        let spares = spares.map(|(pid, process, control)| (Whose::Spare(pid), (process, control)));
        for (who, (process, control)) in places.chain(trial).chain(spares) {
            fds.extend([process.as_fd(), control]);
            whose.push(who);
        }
        fds.extend(self.dying.iter().map(AsFd::as_fd));
        let mut ready = vec![false; fds.len()];
        self.lapse.sleeps(Instant::now(), timeout);
        if let Err(error) = poll::readable(&fds, &mut ready, timeout) {
            tracing::error!(%error, "the supervisor cannot wait");
            std::thread::sleep(DRAIN_LOOK);
        }
        self.notice_lapse();
        if ready[0] {
            let _ = eventfd::drain(self.shared.hub.supervisor());
        }
        // First of all: who is gone.
        for (who, pair) in whose.into_iter().zip(ready[1..].chunks_exact(2)) {
            match who {
                Whose::Place(index) => self.look_at(index, pair[0], pair[1]),
                Whose::Trial => self.look_at_trial(pair[0], pair[1]),
                Whose::Spare(pid) => {
                    self.spares.look_at(pid, (pair[0], pair[1]), &self.shared, &mut self.rollout);
                }
            }
        }
        self.take_commands();
        self.spread_bans();
        self.feel_pulses();
        self.look_at_clocks();
        self.roll_out();
        self.shared.see_to_orphans();
        self.shared.balance();
        // For a worker that does not ring, and an event loop that has stopped in the middle.
        self.shared.poll();
        for index in self.unfolded.drain(..) {
            self.shared.seats[index].tally.fold(self.shared.catalog.load().owners.len());
        }
        self.bury();
    }

    /// Does what other threads have handed in.
    fn take_commands(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Ask { worker, question, reply } => match self.places.get_mut(worker) {
                    Some(Place::Serving { live, .. }) => {
                        live.ask(&self.shared, question, Asker::Thread(reply));
                    }
                    _ => tell(&reply, Err(AskError::NotServing)),
                },
                Command::Deploy { wish, since, reply } => {
                    self.rollout.wish(&self.shared, wish, since, reply);
                }
            }
        }
    }

    /// Lets the workers know which functions are banned, where that has changed.
    fn spread_bans(&mut self) {
        let Some(banned) = self.shared.hub.bans.news() else { return };
        let places = self.places.iter_mut().filter_map(Place::live);
        for live in places.chain(self.spares.ready()) {
            live.ban(&self.shared, banned.clone());
        }
    }

    /// Brings workers a step nearer to what they are to have loaded.
    fn roll_out(&mut self) {
        loop {
            for index in 0..self.places.len() {
                let Some(live) = self.places[index].live() else { continue };
                // What it is loading it ends first: it would hear of it only then, and be killed in the middle where that takes long, which is held against the module.
                let is_full = live.shelf.stayed_bytes() > STAYED_BYTES_MAX
                    && !live.is_retiring()
                    && !live.shelf.is_asked()
                    && self.shared.seats[index].load.outstanding() == 0;
                if is_full {
                    self.recycle(index);
                } else if !live.is_retiring()
                    && let Some(question) = self.rollout.next(Role::Place(index), &mut live.shelf)
                {
                    live.ask(&self.shared, question, Asker::Rollout);
                }
                let Some(live) = self.places[index].live() else { continue };
                if let Some(reason) = live.unsent() {
                    self.dismiss(index, &reason);
                } else {
                    self.open_when_ready(index);
                }
            }
            let serving = self.places.iter().filter_map(Place::serving_shelf);
            if !self.rollout.advance(&self.shared, serving) {
                break;
            }
        }
        let settled = self.is_settled();
        self.spares.keep(&self.plan, &self.shared, &mut self.rollout, settled);
        let shelves = self.places.iter().filter_map(Place::shelf);
        self.rollout.forget(shelves.chain(self.spares.shelves()));
        self.keep_trial();
    }

    /// Kills a process that was never in a place.
    fn discard(&mut self, process: Process) {
        let _ = process.kill();
        self.dying.push(process);
    }

    /// Reaps processes that have ended.
    fn bury(&mut self) {
        self.dying.extend(self.spares.dropped());
        let ended = self.dying.extract_if(.., |process| process.wait(Some(Duration::ZERO)).unwrap_or(true));
        self.held.extend(ended);
        self.held.retain(|process| {
            let exit = process.try_reap().unwrap_or(Some(Exit::Unknown));
            if let Some(exit) = exit {
                tracing::info!(pid = process.pid(), %exit, "process ended");
            }
            exit.is_none()
        });
    }

    /// Ends all workers at once and answers what is left. No process remains.
    fn stop_all(&mut self) {
        if let Some((_, launch)) = self.trial.take() {
            self.discard(launch.process);
        }
        self.dying.extend(self.spares.end());
        self.spares.show(&self.shared.spares);
        for seat in &self.shared.seats {
            if let Some(lane) = seat.close() {
                lane.shut_down(Shut::Closed);
            }
        }
        for place in &self.places {
            if let Some((process, _)) = place.descriptors() {
                let _ = process.kill();
            }
        }
        let processes = self.places.iter().filter_map(|place| Some(place.descriptors()?.0));
        for process in processes.chain(&self.dying).chain(&self.held) {
            let exit = reap(process);
            tracing::debug!(pid = process.pid(), %exit, "worker ended");
        }
        self.places.clear();
        for seat in &self.shared.seats {
            seat.update(|info| (info.pid, info.state) = (None, WorkerState::Stopped));
        }
        self.shared.hub.orphans.end();
        self.shared.hub.wake_event_loop();
    }
}

impl Drop for Supervisor {
    /// A bug in here is the end of the node, and not of its callers: every call is answered.
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the supervisor has panicked, the node is over");
            self.shared.closed.store(true, Ordering::Relaxed);
            // The same bug may be met again on the way; a panic that left this would end the whole process.
            let stop = std::panic::AssertUnwindSafe(|| self.stop_all());
            if std::panic::catch_unwind(stop).is_err() {
                self.shared.hub.orphans.end();
            }
            // Hosts that are attached learn it by the end of their connections.
            self.shared.bulletin.end();
        }
    }
}

fn failed(index: usize, source: LaunchError) -> NodeError {
    NodeError::Worker { worker: u32::try_from(index).unwrap_or(u32::MAX), source }
}

/// How a process has ended that has, or is about to. One that somebody traces is not waited for: only he knows.
fn reap(process: &Process) -> Exit {
    let _ = process.wait(None);
    process.try_reap().ok().flatten().unwrap_or(Exit::Unknown)
}
