//! The worker's loop: serve what the lanes bring, round by round, spin for a while, sleep.

mod orders;
mod rounds;
mod sleep;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use microfaas_control::rate::{FAULTS_PER_SECOND, Rate};
use microfaas_control::{BUILD, POKE_SIGNAL, Start, ToNode, ToWorker};
use microfaas_lane::Status;
use microfaas_lane::state;
use microfaas_lane::sync::Ordering;
use microfaas_lane::worker::Submission;
use microfaas_metrics::Recorder;
use microfaas_preempt::{contain, poke, timer};
use microfaas_sys::affinity;
use microfaas_sys::clock::{CycleClock, cycles, monotonic_ns};

use crate::backlog::Backlog;
use crate::control::{Control, Heard, Lane};
use crate::descriptor::Received;
use crate::execute::refuse;
use crate::idle::Idle;
use crate::kept::repair;
use crate::lanes::{Lanes, NODE};
use crate::modules::{Modules, Standing};
use crate::sandbox::Sandbox;
use crate::schedule::{After, Scheduler};

/// Most calls of a [round](rounds).
const BATCH: u32 = 16;

const _: () = assert!(POKE_SIGNAL == poke::SIGNAL, "the hosts send what the worker listens for");

#[derive(Debug)]
struct Worker {
    control: Control,
    settings: Start,
    lanes: Lanes,
    modules: Modules,
    sandbox: Sandbox,
    scheduler: Scheduler,
    /// Calls that were taken off the rings and have not started.
    backlog: Backlog,
    /// The lane whose ring is looked at first.
    turn: usize,
    /// The last round ended with the rings not all empty, as far as it knows.
    is_behind: bool,
    /// Something that calls may wait for has happened.
    stirred: bool,
    /// No call is started any more.
    is_retiring: bool,
    /// The longest round, in cycles.
    round_cycles: u64,
    idle: Idle,
    /// Those that the node was told of.
    faults: Rate,
}

/// Why a worker cannot go on.
#[derive(Debug)]
pub struct Failure {
    /// What happened.
    pub source: io::Error,
    /// Whether the node knows, and puts it into its log.
    pub told: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    fn tell(source: io::Error, control: &Control) -> Self {
        let told = control.say(&ToNode::Fatal { reason: source.to_string() }).is_ok();
        Self { source, told }
    }
}

/// Runs a worker on this thread until the node closes the control socket. `build` is what the node has given as its [`BUILD`].
///
/// # Errors
/// What makes it impossible to go on: that node and worker are of different builds, for one.
pub fn serve(socket: OwnedFd, build: &str) -> Result<(), Failure> {
    let mut control = Control::new(socket);
    let first = control.wait();
    // Which may be of any form then.
    if build != BUILD {
        let program = std::env::current_exe().unwrap_or_default();
        let program = program.display();
        let mismatch = format!(
            "the worker program `{program}` is of build {BUILD}, its node of build {build}; install both of one build"
        );
        return Err(Failure::tell(io::Error::other(mismatch), &control));
    }
    let (settings, fds) = match first {
        Ok(Heard::Message(ToWorker::Start(settings), fds)) => (settings, fds),
        Ok(Heard::End) => return Ok(()),
        Ok(_) => {
            return Err(Failure::tell(io::Error::other("the node's first message is not `start`"), &control));
        }
        Err(error) => return Err(Failure::tell(error, &control)),
    };
    let mut worker =
        Worker::new(control, settings, fds).map_err(|(control, error)| Failure::tell(error, &control))?;
    let result = worker.set_up().and_then(|ended| if ended { Ok(()) } else { worker.run() });
    result.map_err(|error| Failure::tell(error, &worker.control))
}

impl Worker {
    fn new(control: Control, settings: Start, fds: Vec<Received>) -> Result<Self, (Control, io::Error)> {
        let prepare = || -> io::Result<Scheduler> {
            if nix::unistd::getppid().as_raw() != i32::try_from(settings.node_pid).unwrap_or(0) {
                return Err(io::Error::other("the node is gone"));
            }
            if let Some(cpu) = settings.cpu {
                affinity::pin_to(cpu)?;
            }
            let [metrics] = <[Received; 1]>::try_from(fds)
                .map_err(|fds| io::Error::other(format!("{} descriptors with `start`, not 1", fds.len())))?;
            let clock = match settings.cycle_rate {
                0 => CycleClock::calibrate(Duration::from_millis(2)),
                rate => CycleClock::with_rate(rate),
            };
            let scheduler = Scheduler::new(&settings, clock, Recorder::map(metrics.as_fd())?)?;
            // What the unwinder, which modules share with the worker, does once in a process is done before a call can be stopped in the middle of it.
            let _ = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(())));
            // The handlers stay for the life of the process.
            std::mem::forget(contain::install(Some(repair))?);
            timer::install(&clock)?;
            poke::install()?;
            Ok(scheduler)
        };
        match prepare() {
            Ok(scheduler) => Ok(Self {
                control,
                lanes: Lanes::default(),
                modules: Modules::new(settings.modules_bytes_max, settings.modules_max),
                sandbox: Sandbox::new(settings.sandbox, settings.node_pid),
                round_cycles: scheduler.clock().to_cycles(rounds::ROUND_NS),
                scheduler,
                backlog: Backlog::default(),
                turn: 0,
                is_behind: false,
                stirred: false,
                is_retiring: false,
                idle: Idle::new(settings.spin_ns_max),
                faults: Rate::default(),
                settings,
            }),
            Err(error) => Err((control, error)),
        }
    }

    /// Follows the node's messages up to `serve`. True when the node ended it instead.
    fn set_up(&mut self) -> io::Result<bool> {
        self.control.say(&ToNode::Started)?;
        loop {
            match self.control.wait()? {
                Heard::Message(message, fds) => {
                    if self.obey(message, fds)? {
                        return Ok(false);
                    }
                }
                Heard::End => return Ok(true),
                Heard::Nothing => {}
            }
        }
    }

    fn run(&mut self) -> io::Result<()> {
        // As after a sleep: the node was waited for.
        timer::sync();
        let mut idle_since = None;
        loop {
            let mut busy = self.round()?;
            if self.modules.is_unsettled() {
                self.sweep()?;
            }
            // Whoever is parked looks at what has changed before the worker sleeps.
            busy |= self.stirred;
            if self.modules.is_want_due() {
                busy = true;
                self.modules.say_wants(|message| self.control.try_say(message))?;
            }
            if self.control_waits() {
                busy = true;
                if self.hear()? {
                    return Ok(());
                }
            }
            if self.is_retiring {
                return self.retire();
            }
            if busy {
                idle_since = None;
                continue;
            }
            let now = cycles();
            let since = *idle_since.get_or_insert(now);
            let idle_ns = self.scheduler.clock().to_ns(now.wrapping_sub(since));
            if idle_ns < self.idle.spin_ns(self.shares_core()) {
                for _ in 0..16 {
                    std::hint::spin_loop();
                    if self.lanes.iter().any(|lane| lane.end.is_ready()) {
                        break;
                    }
                }
                continue;
            }
            if self.sleep()? {
                return Ok(());
            }
            idle_since = None;
        }
    }

    /// Brings the calls that have started to their ends, by turns. Those that have not are their hosts' to send elsewhere, once the process has ended.
    #[cold]
    fn retire(&mut self) -> io::Result<()> {
        while self.scheduler.suspended() > 0 {
            self.lanes.has_rival = self.scheduler.suspended() > 1;
            let modules = &mut self.modules;
            let after =
                self.scheduler.resume_next(&mut self.lanes, |_, _| true, |number| modules.find(number));
            self.go_on(after)?;
            self.lanes.iter_mut().for_each(Lane::announce);
            if self.control_waits() && self.hear()? {
                break;
            }
        }
        Ok(())
    }

    /// What is to be done with a call that came by this lane.
    #[inline]
    fn standing(&self, index: usize, function: u32) -> Standing {
        standing(&self.modules, index, function)
    }

    #[inline]
    fn take(&mut self, index: usize, submission: &Submission) -> io::Result<()> {
        let (mut submission, mut standing) = (submission, self.standing(index, submission.function));
        let current;
        if standing == Standing::Moved {
            current = self.modules.successor(submission);
            (submission, standing) = (&current, self.standing(index, current.function));
        }
        if matches!(standing, Standing::Held | Standing::Cold) {
            return self.wait_in_backlog(index, submission).map(drop);
        }
        let lane = &mut self.lanes[index];
        let _ = lane.end.prefetch_next();
        let start = lane.end.start(submission);
        lane.announce();
        let refusal = match start {
            state::Start::TakenBack => (Status::Cancelled, ""),
            state::Start::Yours => {
                if standing == Standing::Ready
                    && let Some((function, instance)) = self.modules.find(submission.function)
                {
                    let lanes = &mut self.lanes;
                    let after = self.scheduler.start(lanes, index, submission, function, instance);
                    return self.go_on(after);
                }
                match standing {
                    Standing::Banned => (Status::Banned, "the function is banned for what its calls did"),
                    Standing::Refused => (Status::LoadFailed, "the function's module was refused"),
                    _ => (Status::NotFound, "no function of that number"),
                }
            }
        };
        let done = refuse(lane, submission, refusal.0, refusal.1, 0);
        // What was taken back is its host's to count.
        if done.status != Status::Cancelled {
            self.scheduler.count_refused(submission, &done);
        }
        Ok(())
    }

    /// What there is to do after a call.
    #[inline]
    fn go_on(&mut self, after: After) -> io::Result<()> {
        if after == After::Serve { Ok(()) } else { self.tell(after) }
    }

    #[cold]
    fn tell(&mut self, after: After) -> io::Result<()> {
        let (faulted, broken) = match after {
            After::Serve => (None, None),
            After::Tell(function) => (Some(function), None),
            After::Retire { fault, tell } => (tell, Some(fault)),
        };
        if let Some(function) = faulted
            && (broken.is_some() || self.faults.count(monotonic_ns()) <= FAULTS_PER_SECOND)
        {
            let fault = ToNode::Fault { function, is_unsafe: broken.is_some() };
            // Of the others, the node has not read hundreds where there is no room: whoever calls what faults as fast as he can does not hold the worker up by it.
            let said = if broken.is_some() { self.control.say(&fault) } else { self.control.try_say(&fault) };
            match said {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                said => said?,
            }
        }
        match broken {
            None => Ok(()),
            Some(fault) => {
                Err(io::Error::other(format!("a function broke memory safety: {}", fault.describe())))
            }
        }
    }

    fn control_waits(&self) -> bool {
        self.lanes.control_waits()
    }

    /// Takes what waits on the control socket. True at its end.
    fn hear(&mut self) -> io::Result<bool> {
        if let Some(lane) = self.lanes.get_mut(NODE) {
            lane.control_seen = lane.end.host_words().control.0.load(Ordering::Acquire);
        }
        loop {
            match self.control.look()? {
                Heard::Message(message, fds) => {
                    self.obey(message, fds)?;
                }
                Heard::Nothing => return Ok(false),
                Heard::End => return Ok(true),
            }
        }
    }
}

/// What is to be done with a call that came by a lane.
#[inline]
fn standing(modules: &Modules, index: usize, function: u32) -> Standing {
    match modules.standing(function) {
        // The node itself submits none of these, and may have lifted the ban by now.
        Standing::Banned if index == NODE => modules.standing_unbanned(function),
        standing => standing,
    }
}
