//! Spares: processes that have everything loaded, are sealed in, serve nobody and sleep. When a worker has ended, one of them takes its place: what is left to do then
//! is to move it to the place's core and to let callers know its lane.
//!
//! A spare is started when all places are looked after and some time has passed since one was taken, so that those who serve have the cores when there is least of them.
//! It is told of deployments and bans as workers are, but nothing waits for it. Spares that end are replaced as workers are, with growing pauses.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use microfaas_control::sandbox::SandboxReport;
use microfaas_metrics::Region;
use microfaas_sys::affinity;
use microfaas_sys::process::Process;

use crate::Node;
use crate::command::{Asker, Heard};
use crate::launch::{Launch, Plan, Progress, Role};
use crate::live::Live;
use crate::node::Shared;
use crate::restart::Restarts;
use crate::rollout::{Rollout, STAYED_BYTES_MAX};
use crate::shelf::Shelf;

/// How long the workers are left alone with the cores after a spare has taken a place, before the next one is started.
const REST: Duration = Duration::from_millis(20);
/// How long none is moved to a core that one could not be moved to.
const BARRED: Duration = Duration::from_secs(60);
/// Which generation of a place a spare is: none.
const NO_GENERATION: u32 = 0;

/// A look at the processes that wait to take a worker's place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpareInfo {
    /// How many there are to be; see [`NodeBuilder::spares`](crate::NodeBuilder::spares).
    pub wanted: u32,
    /// Process ids of those that can take a place now.
    pub ready: Vec<u32>,
    /// Process ids of those that are being set up.
    pub starting: Vec<u32>,
    /// How many have taken a worker's place.
    pub adopted: u64,
    /// How many have ended as spares, or never came up.
    pub ended: u64,
    /// They have ended too often: the next one waits for a while. Workers that end meanwhile are replaced by processes that have to be started first.
    pub backing_off: bool,
}

/// Where the supervisor shows what spares there are.
#[derive(Debug, Default)]
pub(crate) struct SpareBoard(Mutex<SpareInfo>);

impl SpareBoard {
    pub(crate) fn look(&self) -> SpareInfo {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Node {
    /// The processes that wait to take a worker's place. A host that is attached knows of none: they are no workers until they serve.
    #[must_use]
    pub fn spares(&self) -> SpareInfo {
        self.shared().spares.look()
    }
}

/// One that is up.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) live: Box<Live>,
    pub(crate) counted: Region,
    pub(crate) sandbox: SandboxReport,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spares {
    wanted: u32,
    launching: Vec<Launch>,
    /// The one that has been up for longest comes first.
    ready: VecDeque<Spare>,
    restarts: Restarts,
    /// Cores that none could be moved to, until then.
    barred: Vec<(u32, Instant)>,
    /// None is started before.
    not_before: Instant,
    backs_off: bool,
    adopted: u64,
    ended: u64,
    /// Killed, for the supervisor to reap.
    dropped: Vec<Process>,
    /// The board shows something else.
    is_news: bool,
}

impl Spares {
    /// None yet. `restarts`: how many of their ends within ten seconds are made good at once.
    pub(crate) fn new(wanted: u32, restarts: u32) -> Self {
        Self {
            wanted,
            launching: Vec::new(),
            ready: VecDeque::new(),
            restarts: Restarts::new(restarts),
            barred: Vec::new(),
            not_before: Instant::now(),
            backs_off: false,
            adopted: 0,
            ended: 0,
            dropped: Vec::new(),
            is_news: true,
        }
    }

    /// One more is up.
    #[cfg(test)]
    pub(crate) fn add(&mut self, spare: Spare) {
        self.ready.push_back(spare);
    }

    /// Whether one is up.
    pub(crate) fn any(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Those that are up.
    pub(crate) fn ready(&mut self) -> impl Iterator<Item = &mut Live> {
        self.ready.iter_mut().map(|spare| &mut *spare.live)
    }

    /// What they have of the modules.
    pub(crate) fn shelves(&self) -> impl Iterator<Item = &Shelf> + Clone {
        let ready = self.ready.iter().map(|spare| &spare.live.shelf);
        ready.chain(self.launching.iter().map(|launch| &launch.shelf))
    }

    /// Process id of each, and what is to be watched of it.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (u32, &Process, BorrowedFd<'_>)> {
        let ready = self.ready.iter().map(|Spare { live, .. }| (&live.process, live.control()));
        let launching = self.launching.iter().map(Launch::descriptors);
        ready.chain(launching).map(|(process, control)| (process.pid(), process, control))
    }

    /// When something is to be done; `settled`: one may be started.
    pub(crate) fn wakes_at(&self, settled: bool) -> Option<Instant> {
        let start = (settled && self.is_short()).then_some(self.not_before);
        let ready = self.ready.iter().filter_map(|spare| spare.live.answer_by());
        self.launching.iter().map(|launch| launch.answer_by).chain(ready).chain(start).min()
    }

    fn is_short(&self) -> bool {
        self.ready.len() + self.launching.len() < self.wanted as usize
    }

    /// The cores belong to the workers for a while.
    pub(crate) fn rest(&mut self) {
        self.not_before = self.not_before.max(Instant::now() + REST);
    }

    /// Takes one and moves it to this core: one that has all that calls may ask for, where there is one. Those that cannot serve are dropped. None where no spare can be
    /// moved there. The board shows it no more from here on: who sees a worker sees no spare in it.
    pub(crate) fn take(
        &mut self,
        cpu: Option<u32>,
        board: &SpareBoard,
        has_all: impl Fn(&Shelf) -> bool,
    ) -> Option<Spare> {
        let now = Instant::now();
        self.barred.retain(|(_, until)| *until > now);
        if self.barred.iter().any(|(core, _)| Some(*core) == cpu) {
            return None;
        }
        loop {
            let at = self.ready.iter().position(|spare| has_all(&spare.live.shelf)).unwrap_or(0);
            let spare = self.ready.remove(at)?;
            let process = &spare.live.process;
            if process.is_stopped() || process.wait(Some(Duration::ZERO)).unwrap_or(true) {
                self.drop_process(spare.live.process, "is gone, or stopped");
                continue;
            }
            if let Some(cpu) = cpu
                && let Err(error) = affinity::pin(process.pid(), cpu)
            {
                if process.wait(Some(Duration::ZERO)).unwrap_or(true) {
                    self.drop_process(spare.live.process, "is gone");
                    continue;
                }
                // No other can be moved there either. They are good for other places.
                tracing::warn!(cpu, %error, "no spare can be moved to this core for a while");
                self.barred.push((cpu, now + BARRED));
                self.ready.insert(at, spare);
                return None;
            }
            self.adopted += 1;
            self.show(board);
            self.rest();
            return Some(spare);
        }
    }

    /// Something has happened to one of them.
    pub(crate) fn look_at(
        &mut self,
        pid: u32,
        (ended, spoke): (bool, bool),
        shared: &Shared,
        rollout: &mut Rollout,
    ) {
        if let Some(at) = self.ready.iter().position(|spare| spare.live.process.pid() == pid) {
            let live = &mut self.ready[at].live;
            let heard = match (ended, spoke) {
                (true, _) => Err("has ended".to_owned()),
                (false, true) => hear(live, shared, rollout),
                (false, false) => Ok(()),
            };
            if let Err(reason) = heard {
                self.drop_ready(at, &reason);
            }
        } else if let Some(at) = self.launching.iter().position(|launch| launch.process.pid() == pid) {
            let progress = match (ended, spoke) {
                (true, _) => Err(self.launching[at]
                    .last_words()
                    .map_or_else(|| "has ended before it was ready".to_owned(), |error| error.to_string())),
                (false, true) => {
                    self.launching[at].answer(shared, rollout).map_err(|error| error.to_string())
                }
                (false, false) => Ok(Progress::Asked),
            };
            match progress {
                Ok(Progress::Asked | Progress::Tried) => {}
                Ok(Progress::Up(sandbox)) => self.came_up(at, sandbox, shared),
                Err(reason) => self.drop_launching(at, &reason),
            }
        }
    }

    fn came_up(&mut self, at: usize, sandbox: SandboxReport, shared: &Shared) {
        let (mut live, counted) = self.launching.swap_remove(at).finish(NO_GENERATION);
        let banned = shared.hub.bans.numbers();
        if !banned.is_empty() {
            live.ban(shared, banned);
        }
        tracing::debug!(pid = live.process.pid(), "a spare is ready");
        self.restarts.serves(Instant::now());
        self.ready.push_back(Spare { live: Box::new(live), counted, sandbox });
        self.is_news = true;
    }

    /// Brings those that are up a step nearer to what workers are to have, drops those of no use, and starts one if there is time for that (`settled`).
    pub(crate) fn keep(&mut self, plan: &Plan, shared: &Shared, rollout: &mut Rollout, settled: bool) {
        let now = Instant::now();
        for at in (0..self.ready.len()).rev() {
            let live = &mut self.ready[at].live;
            if let Some(question) = rollout.next(Role::Spare, &mut live.shelf) {
                live.ask(shared, question, Asker::Rollout);
            }
            if let Some(reason) = live.unsent() {
                self.drop_ready(at, &reason);
            } else if live.is_silent() {
                let reason = format!("does not answer {}", live.step());
                self.drop_ready(at, &reason);
            } else if live.shelf.stayed_bytes() > STAYED_BYTES_MAX {
                self.drop_ready(at, "keeps modules that were unloaded");
            }
        }
        while let Some(at) = self.launching.iter().position(|launch| launch.answer_by <= now) {
            let reason = self.launching[at].silent().to_string();
            self.drop_launching(at, &reason);
        }
        if shared.is_closed() {
            self.wanted = 0;
        }
        if settled && self.is_short() && self.not_before <= now {
            self.backs_off = false;
            self.is_news = true;
            match Launch::begin(plan, shared, Role::Spare) {
                Ok(launch) => self.launching.push(launch),
                Err(error) => self.failed(&error.to_string()),
            }
        }
        if std::mem::take(&mut self.is_news) {
            self.show(&shared.spares);
        }
    }

    fn drop_ready(&mut self, at: usize, reason: &str) {
        if let Some(spare) = self.ready.remove(at) {
            self.drop_process(spare.live.process, reason);
        }
    }

    fn drop_launching(&mut self, at: usize, reason: &str) {
        let launch = self.launching.swap_remove(at);
        self.drop_process(launch.process, reason);
    }

    fn drop_process(&mut self, process: Process, reason: &str) {
        tracing::warn!(pid = process.pid(), reason, "spare is of no use any more");
        let _ = process.kill();
        self.dropped.push(process);
        self.failed(reason);
    }

    /// One has ended, or could not be started: decides when the next one is.
    fn failed(&mut self, reason: &str) {
        let now = Instant::now();
        let pause = self.restarts.ended(now);
        (self.ended, self.is_news, self.backs_off) = (self.ended + 1, true, !pause.is_zero());
        if self.backs_off {
            tracing::error!(reason, ?pause, "spares end too often, the next one waits");
        }
        self.not_before = self.not_before.max(now + pause.max(REST));
    }

    /// They have until then at least to answer.
    pub(crate) fn have_time_until(&mut self, time: Instant) {
        self.ready().for_each(|live| live.has_time_until(time));
        for launch in &mut self.launching {
            launch.answer_by = launch.answer_by.max(time);
        }
    }

    /// Those that were dropped, to be reaped.
    pub(crate) fn dropped(&mut self) -> impl Iterator<Item = Process> {
        self.dropped.drain(..)
    }

    /// Kills all. They are to be reaped.
    pub(crate) fn end(&mut self) -> impl Iterator<Item = Process> {
        self.wanted = 0;
        let ready = self.ready.drain(..).map(|spare| spare.live.process);
        let all = ready.chain(self.launching.drain(..).map(|launch| launch.process));
        all.inspect(|process| drop(process.kill())).chain(self.dropped.drain(..))
    }

    /// Lets others see what there is.
    pub(crate) fn show(&self, board: &SpareBoard) {
        let info = SpareInfo {
            wanted: self.wanted,
            ready: self.ready.iter().map(|spare| spare.live.process.pid()).collect(),
            starting: self.launching.iter().map(|launch| launch.process.pid()).collect(),
            adopted: self.adopted,
            ended: self.ended,
            backing_off: self.backs_off,
        };
        *board.0.lock().unwrap_or_else(PoisonError::into_inner) = info;
    }
}

/// What one that is up has said.
fn hear(live: &mut Live, shared: &Shared, rollout: &mut Rollout) -> Result<(), String> {
    match live.hear()? {
        Heard::Told => Ok(()),
        Heard::Own(answer) => rollout.answered(shared, Role::Spare, &mut live.shelf, answer),
        Heard::News(news) => rollout.news(Role::Spare, &mut live.shelf, news),
        Heard::Cut(cut) => Err(cut.reason),
        Heard::Last(reason) => Err(reason),
        Heard::End => Err("has ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use microfaas_sys::process::{self, Spawn};
    use microfaas_sys::program::Program;
    use microfaas_sys::socket;

    use super::*;
    use crate::command::Talk;
    use crate::moves::tests::{lane, node};

    /// More than any machine has.
    const NO_CORE: u32 = 1_000_000;

    /// A process that waits for its end, as one that is up.
    fn spare(shared: &Shared, shelf: Shelf) -> Spare {
        let (near, far) = socket::pair().unwrap();
        let args = ["-c".into(), "read line <&3".into()];
        let program = Program::hold(Path::new("/bin/sh")).unwrap();
        let spawn = Spawn { program: &program, args: &args, env: &[], fd: far.as_fd(), number: 3 };
        let process = process::spawn(&spawn).unwrap();
        let live = Live::new(process, Talk::new(near, NO_GENERATION), lane(shared, 0).0, shelf);
        Spare {
            live: Box::new(live),
            counted: Region::create().unwrap().0,
            sandbox: SandboxReport::default(),
        }
    }

    fn end(process: &Process) {
        process.kill().unwrap();
        process.reap().unwrap();
    }

    #[test]
    fn a_core_that_no_spare_can_be_moved_to_is_no_matter_of_the_others() {
        let (shared, _) = node(1);
        let (mut spares, board) = (Spares::new(1, 5), SpareBoard::default());
        spares.ready.push_back(spare(&shared, Shelf::default()));
        assert!(spares.take(Some(NO_CORE), &board, |_| true).is_none());
        assert_eq!((spares.wanted, spares.ready.len(), spares.ended), (1, 1, 0));
        // It is not tried again at once.
        assert_eq!(spares.barred.len(), 1);
        assert!(spares.take(Some(NO_CORE), &board, |_| true).is_none());
        assert_eq!(spares.barred.len(), 1);
        let core = affinity::allowed().unwrap()[0];
        let taken = spares.take(Some(core), &board, |_| true).unwrap();
        assert!(spares.take(Some(core), &board, |_| true).is_none(), "there is none left");
        end(&taken.live.process);
    }

    #[test]
    fn one_that_has_all_comes_before_one_that_loads_and_the_dead_are_passed_over() {
        let (shared, _) = node(1);
        let (mut spares, board) = (Spares::new(3, 5), SpareBoard::default());
        let has_all = |shelf: &Shelf| shelf.knows(1);
        for parts in [0, 1, 1] {
            let mut shelf = Shelf::default();
            for part in 1..=parts {
                shelf.loads(part);
                shelf.loaded(0);
            }
            spares.ready.push_back(spare(&shared, shelf));
        }
        let pids: Vec<u32> = spares.ready.iter().map(|spare| spare.live.process.pid()).collect();
        spares.ready[1].live.process.kill().unwrap();
        spares.ready[1].live.process.wait(None).unwrap();
        spares.show(&board);
        let mut take = || spares.take(None, &board, has_all).unwrap();
        let shown = || board.look().ready;
        assert_eq!(shown(), pids);
        let first = take();
        assert_eq!((first.live.process.pid(), shown()), (pids[2], vec![pids[0]]));
        let second = take();
        assert_eq!((second.live.process.pid(), shown()), (pids[0], vec![]));
        let taken = [first, second];
        assert_eq!((spares.adopted, spares.ended), (2, 1));
        taken.iter().map(|spare| &spare.live.process).chain(&spares.dropped).for_each(end);
    }

    /// Whatever it says meanwhile.
    #[test]
    fn one_that_is_told_to_end_has_a_time_for_it() {
        let (shared, _) = node(1);
        let mut live = spare(&shared, Shelf::default()).live;
        assert!(!live.is_retiring() && !live.outstays() && live.due().is_none());
        live.retire(&shared);
        assert!(live.is_retiring() && !live.outstays());
        let due = live.due().expect("it is looked at then");
        live.has_time_until(due + std::time::Duration::from_secs(3600));
        assert!(live.due().unwrap() > due, "its node has stood still");
        live.is_to_end_now();
        assert!(live.outstays() && live.due().unwrap() <= Instant::now());
        end(&live.process);
    }
}
