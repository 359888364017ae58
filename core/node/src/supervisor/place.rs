//! The workers' places: what is in each of them, and how one worker follows another.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use microfaas_control::sandbox::SandboxReport;
use microfaas_metrics::Region;
use microfaas_sys::process::{Exit, Process};

use super::{Supervisor, failed, reap};
use crate::LaunchError;
use crate::attach::bulletin::Cut;
use crate::command::Heard;
use crate::lane::Shut;
use crate::launch::{Launch, Progress, Role};
use crate::live::Live;
use crate::metrics::RestartCause;
use crate::seat::WorkerState;
use crate::shelf::Shelf;

/// How long one that serves may take to end by itself after it has spoken. The supervisor does nothing else meanwhile, so it is short; a worker that is
/// about to end keeps its exit status when it is killed.
const LAST_STEPS: Duration = Duration::from_millis(20);
/// What is heard of one that has ended; more than a socket holds of honest ones.
const LAST_PACKETS: u32 = 1024;

/// What is in a worker's place.
#[derive(Debug)]
pub(super) enum Place {
    Launching(Box<Launch>),
    Serving {
        live: Box<Live>,
        /// It takes calls: it has all that they may ask for.
        open: bool,
    },
    /// Nothing until then.
    Pausing(Instant),
}

impl Place {
    /// What the process has of the modules.
    pub(super) fn shelf(&self) -> Option<&Shelf> {
        match self {
            Self::Launching(launch) => Some(&launch.shelf),
            Self::Serving { live, .. } => Some(&live.shelf),
            Self::Pausing(_) => None,
        }
    }

    /// What a process has that takes calls and goes on doing so.
    pub(super) fn serving_shelf(&self) -> Option<&Shelf> {
        match self {
            Self::Serving { live, .. } if !live.is_retiring() => Some(&live.shelf),
            _ => None,
        }
    }

    /// The process that serves.
    pub(super) fn live(&mut self) -> Option<&mut Live> {
        match self {
            Self::Serving { live, .. } => Some(live),
            _ => None,
        }
    }

    /// What is to be watched of the process.
    pub(super) fn descriptors(&self) -> Option<(&Process, BorrowedFd<'_>)> {
        match self {
            Self::Launching(launch) => Some(launch.descriptors()),
            Self::Serving { live, .. } => Some((&live.process, live.control())),
            Self::Pausing(_) => None,
        }
    }
}

impl Supervisor {
    /// A worker is to be in this place: a spare, or else one that is started.
    pub(super) fn fill(&mut self, index: usize) -> Result<(), LaunchError> {
        let seat = &self.shared.seats[index];
        let info = seat.info();
        let may_open = |shelf: &Shelf| self.rollout.may_open(shelf);
        if let Some(mut spare) = self.spares.take(info.cpu, &self.shared.spares, may_open) {
            let pid = spare.live.process.pid();
            seat.update(|info| {
                info.pid = Some(pid);
                info.generation += 1;
                info.state = WorkerState::Starting;
            });
            if spare.live.takes(info.index, seat) {
                let lane = Arc::clone(&spare.live.lane);
                self.serving(index, spare.live, spare.counted, spare.sandbox);
                self.open_when_ready(index);
                // It looks where it is when it wakes.
                lane.ring_worker();
                tracing::info!(worker = index, pid, "a spare has taken the place");
                return Ok(());
            }
            self.discard(spare.live.process);
        }
        let launch = Launch::begin(&self.plan, &self.shared, Role::Place(index))?;
        self.shared.seats[index].update(|info| {
            info.pid = Some(launch.process.pid());
            info.generation += 1;
            info.state = WorkerState::Starting;
        });
        self.places[index] = Place::Launching(Box::new(launch));
        Ok(())
    }

    /// Something has happened to the process in this place.
    pub(super) fn look_at(&mut self, index: usize, ended: bool, spoke: bool) {
        if ended {
            self.ended(index);
            return;
        }
        if !spoke {
            return;
        }
        match &mut self.places[index] {
            Place::Launching(launch) => match launch.answer(&self.shared, &mut self.rollout) {
                Ok(Progress::Asked | Progress::Tried) => {}
                Ok(Progress::Up(sandbox)) => self.came_up(index, sandbox),
                // Nobody waits for another one, and whoever starts the node wants to know more.
                Err(LaunchError::Socket(_)) if self.started.is_some() => launch.closes(),
                Err(error) => self.launch_failed(index, error),
            },
            Place::Serving { live, .. } => {
                let said = match live.hear() {
                    Ok(Heard::Told) => return,
                    Ok(Heard::Own(answer)) => {
                        let role = Role::Place(index);
                        match self.rollout.answered(&self.shared, role, &mut live.shelf, answer) {
                            Ok(()) => return,
                            Err(reason) => reason,
                        }
                    }
                    Ok(Heard::News(news)) => {
                        match self.rollout.news(Role::Place(index), &mut live.shelf, news) {
                            Ok(()) => return,
                            Err(reason) => reason,
                        }
                    }
                    Ok(Heard::Cut(cut)) => {
                        if self.shared.bulletin.cut(Cut { worker: index, ..cut.clone() }) {
                            return;
                        }
                        cut.reason
                    }
                    Ok(Heard::Last(reason)) => {
                        let _ = live.process.kill();
                        self.ended(index);
                        return tracing::warn!(worker = index, reason, "the worker could not go on");
                    }
                    // It ends. Its memory is gone by now; what the kernel has still to take apart takes it longer than that, and nobody waits for it.
                    Ok(Heard::End) => {
                        let _ = live.process.kill();
                        return self.ended(index);
                    }
                    Err(said) => said,
                };
                self.dismiss(index, &said);
            }
            Place::Pausing(_) => {}
        }
    }

    /// A worker that serves is of no use any more: it has spoken out of turn, cannot be told anything, or holds too much.
    pub(super) fn dismiss(&mut self, index: usize, said: &str) {
        let Place::Serving { live, .. } = &self.places[index] else { return };
        tracing::warn!(worker = index, said, "worker is of no use any more, it will be replaced");
        if !live.process.wait(Some(LAST_STEPS)).unwrap_or(false) {
            self.shared.seats[index].tally.doom(RestartCause::Protocol);
            let _ = live.process.kill();
        }
        self.ended(index);
    }

    /// Modules that were unloaded have stayed in the memory of a worker that has nothing to do, as far as the node knows: it ends when it has done what it has begun. That
    /// may be calls of attached hosts, or one that has come just now.
    pub(super) fn recycle(&mut self, index: usize) {
        let Place::Serving { live, .. } = &mut self.places[index] else { return };
        let seat = &self.shared.seats[index];
        seat.tally.doom(RestartCause::Stayed);
        seat.load.leave();
        live.retire(&self.shared);
        let stayed_bytes = live.shelf.stayed_bytes();
        tracing::info!(
            worker = index,
            stayed_bytes,
            "unloaded modules have stayed in memory, the worker is replaced"
        );
    }

    /// The process that was started for this place is up.
    fn came_up(&mut self, index: usize, sandbox: SandboxReport) {
        let place = std::mem::replace(&mut self.places[index], Place::Pausing(Instant::now()));
        let Place::Launching(launch) = place else { return };
        for (layer, reason) in sandbox.refused() {
            tracing::info!(
                worker = index,
                layer = layer.describe(),
                reason,
                "a layer of the sandbox was refused"
            );
        }
        let (mut live, counted) = launch.finish(self.shared.seats[index].info().generation);
        let banned = self.shared.hub.bans.numbers();
        if !banned.is_empty() {
            live.ban(&self.shared, banned);
        }
        self.serving(index, Box::new(live), counted, sandbox);
    }

    /// A process that is up is in this place from now on. It takes calls as soon as it has what was deployed since it came up, if anything.
    pub(super) fn serving(&mut self, index: usize, live: Box<Live>, counted: Region, sandbox: SandboxReport) {
        let seat = &self.shared.seats[index];
        seat.tally.begin(counted);
        seat.sealed(sandbox);
        self.rollout.enters(index, &live.shelf);
        self.places[index] = Place::Serving { live, open: false };
    }

    /// Lets the worker in this place take calls, if it has all that these may ask for.
    pub(super) fn open_when_ready(&mut self, index: usize) {
        let Place::Serving { live, open } = &mut self.places[index] else { return };
        if *open || live.is_retiring() || !self.rollout.may_open(&live.shelf) {
            return;
        }
        *open = true;
        let seat = &self.shared.seats[index];
        seat.open(Arc::clone(&live.lane));
        self.restarts[index].serves(Instant::now());
        seat.update(|info| info.state = WorkerState::Serving);
        tracing::info!(worker = index, pid = live.process.pid(), "worker serves");
        self.shared.bulletin.changed();
    }

    /// The process of this place has ended, or is about to.
    pub(super) fn ended(&mut self, index: usize) {
        let place = std::mem::replace(&mut self.places[index], Place::Pausing(Instant::now()));
        match place {
            Place::Launching(launch) => {
                self.rollout.lost(&self.shared, Role::Place(index), &launch.shelf, true, false);
                let exit = reap(&launch.process);
                let why = launch.last_words().unwrap_or(LaunchError::Died(exit));
                if exit == Exit::Unknown {
                    self.held.push(launch.process);
                }
                self.launch_failed_after(index, why);
            }
            Place::Serving { mut live, .. } => {
                self.hear_out(index, &mut live);
                let seat = &self.shared.seats[index];
                seat.close_counted(&live.lane);
                self.shared.stock.leaves(index);
                live.lane.shut_down(Shut::Lost);
                seat.tally.end();
                // Callers wait for the next one.
                let pause = match live.is_retiring() {
                    true => self.restarts[index].retired(Instant::now()),
                    false => self.restarts[index].ended(Instant::now()),
                };
                self.replace(index, RestartCause::Died, pause);
                // What lies behind another question was never begun. Before its calls go elsewhere: what is banned for this does not.
                let began = live.step() == "load";
                self.rollout.lost(&self.shared, Role::Place(index), &live.shelf, began, live.is_silent());
                self.shared.see_to_orphans();
                // All the rest comes after.
                self.unfolded.push(index);
                tracing::warn!(worker = index, pid = live.process.pid(), "worker ended");
                self.dying.push(live.process);
            }
            Place::Pausing(until) => self.places[index] = Place::Pausing(until),
        }
    }

    /// What a worker that has ended had to say still: of its calls, and that it has done what it was asked.
    fn hear_out(&mut self, index: usize, live: &mut Live) {
        let role = Role::Place(index);
        for _ in 0..LAST_PACKETS {
            // What is wrong with it does not matter any more.
            match live.hear() {
                Ok(Heard::Told) => {}
                Ok(Heard::Own(answer)) => {
                    let _ = self.rollout.answered(&self.shared, role, &mut live.shelf, answer);
                }
                Ok(Heard::News(news)) => {
                    let _ = self.rollout.news(role, &mut live.shelf, news);
                }
                Ok(Heard::Last(reason)) => {
                    return tracing::warn!(worker = index, reason, "the worker could not go on");
                }
                Ok(Heard::Cut(_) | Heard::End) | Err(_) => return,
            }
        }
    }

    pub(super) fn launch_failed(&mut self, index: usize, error: LaunchError) {
        let place = std::mem::replace(&mut self.places[index], Place::Pausing(Instant::now()));
        let Place::Launching(launch) = place else { return };
        let silent = matches!(error, LaunchError::Silent { .. });
        self.rollout.lost(&self.shared, Role::Place(index), &launch.shelf, true, silent);
        // It may take the kernel seconds to take it apart, and its exit status is put into the log then.
        self.discard(launch.process);
        self.launch_failed_after(index, error);
    }

    pub(super) fn launch_failed_after(&mut self, index: usize, error: LaunchError) {
        if self.started.is_some() {
            self.failure.get_or_insert_with(|| failed(index, error));
        } else {
            tracing::error!(worker = index, %error, "worker did not come up");
            let pause = self.restarts[index].ended(Instant::now());
            self.replace(index, RestartCause::Launch, pause);
        }
    }

    /// The next worker takes this place after a pause. A spare that may do so now does.
    fn replace(&mut self, index: usize, cause: RestartCause, pause: Duration) {
        self.shared.seats[index].tally.restarted(cause);
        let now = Instant::now();
        self.shared.seats[index].update(|info| {
            info.pid = None;
            info.restarts += 1;
            info.state = if pause.is_zero() { WorkerState::Starting } else { WorkerState::BackingOff };
        });
        self.places[index] = Place::Pausing(now + pause);
        if !pause.is_zero() {
            tracing::error!(worker = index, ?pause, "worker ends too often, its replacement waits");
        } else if self.spares.any() {
            self.fill_when_due(index, now);
        }
        self.shared.bulletin.changed();
    }

    /// Puts the next worker into this place where its time has come.
    pub(super) fn fill_when_due(&mut self, index: usize, now: Instant) {
        if matches!(self.places[index], Place::Pausing(until) if until <= now)
            && !self.shared.closed.load(Ordering::Relaxed)
            && let Err(error) = self.fill(index)
        {
            self.launch_failed_after(index, error);
        }
    }
}
