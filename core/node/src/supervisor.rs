//! The one thread that starts workers, watches them, and replaces them. It lives as long as the node: workers die with the thread that
//! started them (see `microfaas_sys::process::spawn`), so no worker outlives its node.
//!
//! It sleeps until something happens: a worker ends (its process descriptor), says something (its control socket), a caller found it lying or
//! set an early deadline (the hub's descriptor), or a call is overdue.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use microfaas_control::sandbox::SandboxReport;
use microfaas_lane::host::Ticket;
use microfaas_sys::clock::monotonic_ns;
use microfaas_sys::process::{Exit, Process};
use microfaas_sys::{eventfd, poll};

use crate::attach::bulletin::Cut;
use crate::command::{AskError, Asker, Command, Heard, Talk, tell};
use crate::lane::{Lane, Shut};
use crate::launch::{Launch, Plan, Progress};
use crate::metrics::RestartCause;
use crate::node::Shared;
use crate::pulse::{FOR_EVER, Pulse, Sign};
use crate::restart::Restarts;
use crate::rollout::{Rollout, Shelf};
use crate::seat::WorkerState;
use crate::{LaunchError, NodeError, watch};

/// While the node waits for calls to end before it stops: how often it looks.
const DRAIN_LOOK: Duration = Duration::from_millis(2);
/// How long one that serves may take to end by itself after it has spoken. The supervisor does nothing else meanwhile, so it is short; a worker that is
/// about to end keeps its exit status when it is killed.
const LAST_STEPS: Duration = Duration::from_millis(20);
/// What is heard of one that has ended; more than a socket holds of honest ones.
const LAST_PACKETS: u32 = 1024;
/// Bytes of unloaded modules that may stay mapped in a worker; then it is replaced when it has nothing to do.
const STAYED_BYTES_MAX: u64 = 256 << 20;
/// How long a worker that has closed its control socket while it was started may take to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is in a worker's place.
#[derive(Debug)]
enum Place {
    Launching(Box<Launch>),
    Serving {
        process: Process,
        talk: Box<Talk>,
        lane: Arc<Lane>,
        shelf: Shelf,
        /// It takes calls: it has all that they may ask for.
        open: bool,
        pulse: Pulse,
    },
    /// Nothing until then.
    Pausing(Instant),
}

/// How long workers may show nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Of a call that is overdue.
    pub(crate) stall_ns: u64,
    /// Of anything, with calls in hand.
    pub(crate) heartbeat: Duration,
    /// How many of their ends within ten seconds are made good at once.
    pub(crate) restarts: u32,
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
    inbox: Receiver<Command>,
    /// The process in which the modules of this deployment are tried out.
    trial: Option<(u64, Box<Launch>)>,
    /// Until every worker has served once.
    started: Option<SyncSender<Result<(), NodeError>>>,
    /// Why the start has failed; everything ends after this round.
    failure: Option<NodeError>,
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
        Self {
            shared,
            plan,
            rollout,
            patience,
            places: Vec::new(),
            restarts,
            inbox,
            trial: None,
            started: Some(started),
            failure: None,
        }
    }

    /// Runs until the node is shut down or could not be started. No worker is left then.
    pub(crate) fn run(mut self) {
        let mut outcome = self.start_all();
        while outcome.is_ok() {
            let stop_by = self.shared.stop_by();
            if stop_by.is_some_and(|time| self.shared.drained_by(time)) {
                break;
            }
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
        for index in 0..self.shared.seats.len() {
            match self.launch(index) {
                Ok(place) => self.places.push(place),
                Err(source) => return Err(failed(index, source)),
            }
        }
        Ok(())
    }

    fn launch(&mut self, index: usize) -> Result<Place, LaunchError> {
        let launch = Launch::begin(&self.plan, &self.shared, index)?;
        self.shared.seats[index].update(|info| {
            info.pid = Some(launch.process.pid());
            info.generation += 1;
            info.state = WorkerState::Starting;
        });
        Ok(Place::Launching(Box::new(launch)))
    }

    fn report_if_all_serve(&mut self) {
        if self.started.is_some()
            && self.places.iter().all(|place| matches!(place, Place::Serving { open: true, .. }))
        {
            self.report(Ok(()));
        }
    }

    /// Sleeps until there is something to do, and does it.
    fn wait_and_act(&mut self, draining: bool) {
        let deadline = self.watch_calls();
        let timeout = if draining { Some(DRAIN_LOOK) } else { self.timeout(deadline) };
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.shared.hub.supervisor()];
        let mut whose = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            if let Some((process, control)) = place.descriptors() {
                fds.extend([process.as_fd(), control]);
                whose.push(index);
            }
        }
        if let Some((_, launch)) = &self.trial {
            fds.extend([launch.process.as_fd(), launch.control.as_fd()]);
        }
        let mut ready = vec![false; fds.len()];
        if let Err(error) = poll::readable(&fds, &mut ready, timeout) {
            tracing::error!(%error, "the supervisor cannot wait");
            std::thread::sleep(DRAIN_LOOK);
        }
        if ready[0] {
            let _ = eventfd::drain(self.shared.hub.supervisor());
        }
        self.take_commands();
        let places = whose.len();
        for (index, pair) in whose.into_iter().zip(ready[1..].chunks_exact(2)) {
            self.look_at(index, pair[0], pair[1]);
        }
        if let Some([ended, spoke]) = ready.get(1 + 2 * places..) {
            self.look_at_trial(*ended, *spoke);
        }
        self.spread_bans();
        self.feel_pulses();
        self.look_at_clocks();
        self.roll_out();
        self.shared.see_to_orphans();
        self.shared.balance();
        // For a worker that does not ring, and an event loop that has stopped in the middle.
        self.shared.poll();
    }

    /// Does what other threads have handed in.
    fn take_commands(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Ask { worker, question, reply } => match self.places.get_mut(worker) {
                    Some(Place::Serving { talk, lane, .. }) => {
                        talk.ask(lane, question, Asker::Thread(reply));
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
        for place in &mut self.places {
            if let Place::Serving { talk, lane, .. } = place {
                talk.ban(lane, banned.clone());
            }
        }
    }

    /// Looks how far the process has come in which modules are tried out.
    fn look_at_trial(&mut self, ended: bool, spoke: bool) {
        let Some((_, launch)) = &mut self.trial else { return };
        let failure = if spoke {
            match launch.answer(&self.shared, &mut self.rollout, 0) {
                Ok(Progress::Tried) => return self.rollout.tried(),
                Ok(Progress::Asked) => return,
                Ok(Progress::Serving(..)) => "serves though it is not to".to_owned(),
                // A closed socket is an end that is still on its way.
                Err(LaunchError::Socket(_)) if ended => format!("ended with {}", reap(&launch.process)),
                Err(LaunchError::Socket(_)) => return,
                Err(error) => error.to_string(),
            }
        } else if ended {
            format!("ended with {}", reap(&launch.process))
        } else if launch.answer_by <= Instant::now() {
            launch.silent().to_string()
        } else {
            return;
        };
        let Some((serial, launch)) = self.trial.take() else { return };
        if self.rollout.to_try() == Some(serial) {
            let reason = format!("the process that tries it out: {failure}");
            self.rollout.trial_failed(&self.shared, &launch.shelf, &reason);
        }
        discard(&launch.process);
    }

    /// Begins to try out what is deployed, and ends what is no longer needed for that.
    fn keep_trial(&mut self) {
        let wanted = self.rollout.to_try();
        if let Some((_, launch)) = self.trial.take_if(|(serial, _)| Some(*serial) != wanted) {
            discard(&launch.process);
        }
        if let (None, Some(serial)) = (&self.trial, wanted) {
            match Launch::try_out(&self.plan, &self.shared) {
                Ok(launch) => self.trial = Some((serial, Box::new(launch))),
                Err(error) => {
                    self.rollout.trial_failed(&self.shared, &Shelf::default(), &error.to_string());
                }
            }
        }
    }

    /// Brings workers a step nearer to what they are to have loaded.
    fn roll_out(&mut self) {
        loop {
            for index in 0..self.places.len() {
                let Place::Serving { process, talk, lane, shelf, open, .. } = &mut self.places[index] else {
                    continue;
                };
                if let Some(question) = self.rollout.next(index, shelf) {
                    talk.ask(lane, question, Asker::Rollout);
                }
                if let Some(reason) = talk.unsent() {
                    self.dismiss(index, &reason);
                } else if shelf.stayed_bytes() > STAYED_BYTES_MAX
                    && self.shared.seats[index].load.outstanding() == 0
                {
                    self.dismiss(index, "modules that were unloaded have stayed in its memory");
                } else if !*open && self.rollout.may_open(shelf) {
                    *open = true;
                    let seat = &self.shared.seats[index];
                    seat.open(Arc::clone(lane));
                    seat.update(|info| info.state = WorkerState::Serving);
                    tracing::info!(worker = index, pid = process.pid(), "worker serves");
                    self.shared.bulletin.changed();
                }
            }
            let serving = self.places.iter().filter_map(Place::serving_shelf);
            if !self.rollout.advance(&self.shared, serving) {
                break;
            }
        }
        self.rollout.forget(self.places.iter().filter_map(Place::shelf));
        self.keep_trial();
    }

    fn timeout(&self, deadline_ns: u64) -> Option<Duration> {
        let calls = (deadline_ns != u64::MAX)
            .then(|| Duration::from_nanos(deadline_ns.saturating_sub(monotonic_ns())));
        let now = Instant::now();
        let places = self.places.iter().filter_map(|place| match place {
            Place::Launching(launch) => Some(launch.answer_by.saturating_duration_since(now)),
            Place::Pausing(until) => Some(until.saturating_duration_since(now)),
            Place::Serving { talk, .. } => talk.answer_by().map(|time| time.saturating_duration_since(now)),
        });
        let insurance = self.shared.look_within();
        let trial = self.trial.as_ref().map(|(_, launch)| launch.answer_by.saturating_duration_since(now));
        let guests = self.shared.bulletin.has_guests().then_some(self.patience.heartbeat.min(FOR_EVER));
        let nobody = !self.places.iter().any(|place| matches!(place, Place::Serving { .. }));
        let patience = self.rollout.patience().filter(|_| nobody);
        calls.into_iter().chain(places).chain(insurance).chain(guests).chain(patience).chain(trial).min()
    }

    /// Wakes the owners of overdue calls, kills workers that hang, and says when the next call is due.
    fn watch_calls(&mut self) -> u64 {
        watch::watch(&self.shared.hub, || self.next_due())
    }

    fn next_due(&self) -> u64 {
        let mut next = u64::MAX;
        for place in &self.places {
            let Place::Serving { process, lane, .. } = place else { continue };
            if lane.is_shut() {
                // Found lying by a caller.
                self.shared.seats[lane.worker as usize].tally.doom(RestartCause::Violation);
                let _ = process.kill();
                lane.hub.orphans.add(lane);
                continue;
            }
            let look = watch::look(lane, self.patience.stall_ns);
            next = next.min(look.next_ns);
            if let Some(ticket @ Ticket { slot, generation }) = look.hung {
                let number = lane.note(ticket).function.load(Ordering::Relaxed);
                let catalog = self.shared.catalog.load();
                let (worker, function) =
                    (lane.worker, catalog.owners.get(number as usize).map(String::as_str));
                tracing::warn!(
                    worker,
                    function,
                    slot,
                    generation,
                    "worker hangs in a call, it will be replaced"
                );
                self.shared.seats[lane.worker as usize].tally.doom(RestartCause::Hung);
                let _ = process.kill();
            }
        }
        next
    }

    fn look_at(&mut self, index: usize, ended: bool, spoke: bool) {
        if ended {
            self.ended(index);
            return;
        }
        if !spoke {
            return;
        }
        match &mut self.places[index] {
            Place::Launching(launch) => match launch.answer(&self.shared, &mut self.rollout, index) {
                Ok(Progress::Asked | Progress::Tried) => {}
                Ok(Progress::Serving(lane, sandbox)) => self.serving(index, lane, sandbox),
                Err(error) => self.launch_failed(index, error),
            },
            Place::Serving { talk, lane, shelf, .. } => {
                let said = match talk.hear(lane) {
                    Ok(Heard::Told) => return,
                    Ok(Heard::Own(answer)) => {
                        match self.rollout.answered(&self.shared, index, shelf, answer) {
                            Ok(()) => return,
                            Err(reason) => reason,
                        }
                    }
                    Ok(Heard::Unloaded { part, stayed_bytes }) => {
                        if Rollout::unloaded(shelf, part, stayed_bytes) {
                            return;
                        }
                        format!("module {part} is unloaded")
                    }
                    Ok(Heard::Cut(cut)) => {
                        if self.shared.bulletin.cut(Cut { worker: index, ..cut.clone() }) {
                            return;
                        }
                        cut.reason
                    }
                    Err(said) => said,
                };
                self.dismiss(index, &said);
            }
            Place::Pausing(_) => {}
        }
    }

    /// A worker that serves is of no use any more: it has spoken out of turn, cannot be told anything, or holds too much.
    fn dismiss(&mut self, index: usize, said: &str) {
        let Place::Serving { process, .. } = &self.places[index] else { return };
        tracing::warn!(worker = index, said, "worker is of no use any more, it will be replaced");
        if !process.wait(Some(LAST_STEPS)).unwrap_or(false) {
            self.shared.seats[index].tally.doom(RestartCause::Protocol);
            let _ = process.kill();
        }
        self.ended(index);
    }

    fn serving(&mut self, index: usize, lane: Arc<Lane>, sandbox: SandboxReport) {
        let place = std::mem::replace(&mut self.places[index], Place::Pausing(Instant::now()));
        let Place::Launching(launch) = place else { return };
        let Launch { process, control, shelf, counted, .. } = *launch;
        let seat = &self.shared.seats[index];
        seat.tally.begin(counted);
        for (layer, reason) in sandbox.refused() {
            tracing::info!(
                worker = index,
                layer = layer.describe(),
                reason,
                "a layer of the sandbox was refused"
            );
        }
        seat.sealed(sandbox);
        let mut talk = Box::new(Talk::new(control, seat.info().generation));
        let banned = self.shared.hub.bans.numbers();
        if !banned.is_empty() {
            talk.ban(&lane, banned);
        }
        // Opened when it has what was deployed since it was told to serve, if anything.
        self.places[index] = Place::Serving { process, talk, lane, shelf, open: false, pulse: Pulse::new() };
    }

    /// The process of this place has ended, or is about to.
    fn ended(&mut self, index: usize) {
        let place = std::mem::replace(&mut self.places[index], Place::Pausing(Instant::now()));
        match place {
            Place::Launching(launch) => {
                self.rollout.lost(&self.shared, index, &launch.shelf, false);
                let exit = reap(&launch.process);
                self.launch_failed_after(index, LaunchError::Died(exit));
            }
            Place::Serving { process, lane, shelf, mut talk, .. } => {
                let silent = talk.answer_by().is_some_and(|time| time <= Instant::now());
                self.rollout.lost(&self.shared, index, &shelf, silent);
                // What it had to say of its calls is heard to the end.
                let _ = (0..LAST_PACKETS).all(|_| talk.hear(&lane).is_ok());
                self.shared.seats[index].close();
                lane.shut_down(Shut::Lost);
                self.replace(index, RestartCause::Died);
                let exit = reap(&process);
                self.shared.seats[index].tally.end(self.shared.catalog.load().owners.len());
                tracing::warn!(worker = index, pid = process.pid(), %exit, "worker ended");
            }
            Place::Pausing(until) => self.places[index] = Place::Pausing(until),
        }
    }

    fn launch_failed(&mut self, index: usize, error: LaunchError) {
        let place = std::mem::replace(&mut self.places[index], Place::Pausing(Instant::now()));
        let Place::Launching(launch) = place else { return };
        self.rollout.lost(&self.shared, index, &launch.shelf, matches!(error, LaunchError::Silent { .. }));
        // A closed socket is an end that is still on its way; its exit status says more.
        let ending = matches!(error, LaunchError::Socket(_));
        let alone = ending && launch.process.wait(Some(LAST_WORDS)).unwrap_or(false);
        let _ = launch.process.kill();
        let exit = reap(&launch.process);
        self.launch_failed_after(index, if alone { LaunchError::Died(exit) } else { error });
    }

    fn launch_failed_after(&mut self, index: usize, error: LaunchError) {
        if self.started.is_some() {
            self.failure.get_or_insert_with(|| failed(index, error));
        } else {
            tracing::error!(worker = index, %error, "worker did not come up");
            self.replace(index, RestartCause::Launch);
        }
    }

    /// Decides when the next worker takes this place.
    fn replace(&mut self, index: usize, cause: RestartCause) {
        self.shared.seats[index].tally.restarted(cause);
        let now = Instant::now();
        let pause = self.restarts[index].ended(now);
        self.shared.seats[index].update(|info| {
            info.pid = None;
            info.restarts += 1;
            info.state = if pause.is_zero() { WorkerState::Starting } else { WorkerState::BackingOff };
        });
        if !pause.is_zero() {
            tracing::error!(worker = index, ?pause, "worker ends too often, its replacement waits");
        }
        self.places[index] = Place::Pausing(now + pause);
        self.shared.bulletin.changed();
    }

    /// Asks workers for a sign of life that have shown none for a while.
    fn feel_pulses(&mut self) {
        let heartbeat = self.patience.heartbeat;
        let has_guests = self.shared.bulletin.has_guests();
        for place in &mut self.places {
            let Place::Serving { talk, lane, pulse, .. } = place else { continue };
            match pulse.feel(lane, has_guests, heartbeat) {
                Sign::Weak => {}
                Sign::Strong => talk.gets_on(|| self.shared.answer_within(heartbeat)),
                Sign::Faint => talk.ping(lane, self.shared.answer_within(heartbeat)),
            }
        }
    }

    fn look_at_clocks(&mut self) {
        let now = Instant::now();
        for index in 0..self.places.len() {
            match &self.places[index] {
                _ if self.failure.is_some() => return,
                Place::Launching(launch) if launch.answer_by <= now => {
                    let error = launch.silent();
                    self.launch_failed(index, error);
                }
                Place::Serving { process, talk, .. } if talk.answer_by().is_some_and(|time| time <= now) => {
                    let step = talk.step();
                    tracing::warn!(worker = index, step, "worker does not answer, it will be replaced");
                    self.shared.seats[index].tally.doom(RestartCause::Silent);
                    let _ = process.kill();
                    self.ended(index);
                }
                Place::Pausing(until) if *until <= now && !self.shared.closed.load(Ordering::Relaxed) => {
                    match self.launch(index) {
                        Ok(place) => self.places[index] = place,
                        Err(error) => self.launch_failed_after(index, error),
                    }
                }
                _ => {}
            }
        }
    }

    /// Ends all workers at once and answers what is left. No process remains.
    fn stop_all(&mut self) {
        if let Some((_, launch)) = self.trial.take() {
            discard(&launch.process);
        }
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
        for place in self.places.drain(..) {
            if let Some((process, _)) = place.descriptors() {
                let exit = reap(process);
                tracing::debug!(pid = process.pid(), %exit, "worker ended");
            }
        }
        for seat in &self.shared.seats {
            seat.update(|info| (info.pid, info.state) = (None, WorkerState::Stopped));
        }
        self.shared.hub.orphans.end();
        self.shared.hub.wake_event_loop();
    }
}

impl Place {
    fn shelf(&self) -> Option<&Shelf> {
        match self {
            Self::Launching(launch) => Some(&launch.shelf),
            Self::Serving { shelf, .. } => Some(shelf),
            Self::Pausing(_) => None,
        }
    }

    fn serving_shelf(&self) -> Option<&Shelf> {
        self.shelf().filter(|_| matches!(self, Self::Serving { .. }))
    }

    fn descriptors(&self) -> Option<(&Process, BorrowedFd<'_>)> {
        match self {
            Self::Launching(launch) => Some((&launch.process, launch.control.as_fd())),
            Self::Serving { process, talk, .. } => Some((process, talk.as_fd())),
            Self::Pausing(_) => None,
        }
    }
}

fn failed(index: usize, source: LaunchError) -> NodeError {
    NodeError::Worker { worker: u32::try_from(index).unwrap_or(u32::MAX), source }
}

fn discard(process: &Process) {
    let _ = process.kill();
    reap(process);
}

fn reap(process: &Process) -> Exit {
    process.reap().unwrap_or(Exit::Unknown)
}
