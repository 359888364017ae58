//! Bringing one worker up: start its process, then one question at a time over the control socket until it serves.
//!
//! Nothing here waits: the supervisor hands in packets as they come, so that one slow worker does not hold up the others.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_control::sandbox::{LayerState, SandboxPolicy, SandboxReport};
use microfaas_control::{
    BUILD, CONTROL_FD, LaneSpec, PACKET_BYTES_MAX, Start, ToNode, ToWorker, decode, encode,
};
use microfaas_lane::layout::Geometry;
use microfaas_metrics::Region;
use microfaas_sys::process::{self, Process, Spawn};
use microfaas_sys::program::Program;
use microfaas_sys::{eventfd, namespaces, socket};

use crate::LaunchError;
use crate::command::Talk;
use crate::completion::printable;
use crate::lane::Lane;
use crate::live::Live;
use crate::memory::{LaneMemory, RegionFds};
use crate::node::Shared;
use crate::rollout::{ANSWER_WITHIN, Errand, Rollout};
use crate::seat::Seat;
use crate::shelf::Shelf;

/// How long a process may take to seal itself in. Where it makes namespaces of its own, the kernel waits for all cores there (mounts and networks go with a grace period of its
/// read-copy-update), which has been seen to take half a minute where there was far more to do than the cores could.
const SEALED_WITHIN: Duration = Duration::from_secs(180);

/// How long one may take to end that has closed its control socket. It is about to: the kernel takes it apart, and then its exit status says more than the socket.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Packets that are read of one that has ended, which may have left more than it should.
const LAST_PACKETS: u32 = 64;

/// By how much sooner the kernel ends a worker than its node when memory is out: it can be replaced.
const OOM_SCORE: i32 = 300;

/// Most characters of what a worker says of one layer of its sandbox.
const REASON_CHARS_MAX: usize = 256;

/// What all workers of a node have in common.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) program: Program,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) geometry: Geometry,
    pub(crate) spin_ns: u64,
    pub(crate) stack_bytes: u64,
    pub(crate) arena_bytes: u64,
    pub(crate) init_bytes: u64,
    pub(crate) suspended_max: u32,
    pub(crate) modules_bytes_max: u64,
    pub(crate) modules_max: u32,
    pub(crate) sandbox: SandboxPolicy,
    /// Of all of them; `None` where each makes its own.
    pub(crate) namespaces: Option<Arc<namespaces::Shared>>,
}

/// What a process is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To serve in this place.
    Place(usize),
    /// To wait until a place is in need of it.
    Spare,
    /// To try out what is deployed, and never to serve.
    Trial,
}

/// What was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Start,
    AddLane,
    Seal,
    /// This part of a module.
    Load(u32),
    /// Modules that are cold.
    Shelve,
    Serve,
}

impl Step {
    /// How long it may take.
    fn within(self) -> Duration {
        if self == Self::Seal { SEALED_WITHIN } else { ANSWER_WITHIN }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::AddLane => "add_lane",
            Self::Seal => "seal",
            Self::Load(_) => "load",
            Self::Shelve => "shelve",
            Self::Serve => "serve",
        }
    }
}

/// A worker on its way up.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) process: Process,
    pub(crate) control: OwnedFd,
    lane: Arc<Lane>,
    /// Until they have been sent.
    fds: Option<RegionFds>,
    /// See [`Plan::namespaces`].
    namespaces: Option<Arc<namespaces::Shared>>,
    step: Step,
    /// What it has loaded.
    pub(crate) shelf: Shelf,
    /// What it counts in.
    pub(crate) counted: Region,
    role: Role,
    /// It has closed its control socket: its end is waited for, and nothing else.
    is_closed: bool,
    pub(crate) answer_by: Instant,
}

/// What an answer led to.
#[derive(Debug)]
pub(crate) enum Progress {
    Asked,
    /// It can take calls.
    Up(SandboxReport),
    /// It has loaded what was to be tried out.
    Tried,
}

impl Launch {
    /// Makes a lane, starts the process, asks the first question. The calling thread must live as long as the worker is to. But for a place's own core, it runs
    /// wherever there is one.
    pub(crate) fn begin(plan: &Plan, shared: &Shared, role: Role) -> Result<Self, LaunchError> {
        let (memory, fds) = LaneMemory::create(plan.geometry).map_err(LaunchError::Memory)?;
        let (counted, count_in) = Region::create().map_err(LaunchError::Memory)?;
        let event = eventfd::create().map_err(LaunchError::Memory)?;
        shared.hub.listen(event.as_fd()).map_err(LaunchError::Memory)?;
        let (mine, theirs) = socket::pair().map_err(LaunchError::Socket)?;
        socket::refuse_descriptors(mine.as_fd()).map_err(LaunchError::Socket)?;
        let spawn = Spawn {
            program: &plan.program,
            args: &[BUILD.into()],
            env: &plan.env,
            fd: theirs.as_fd(),
            number: CONTROL_FD,
        };
        let process = process::spawn(&spawn)
            .map_err(|source| LaunchError::Spawn { program: plan.program.path().to_owned(), source })?;
        if let Err(error) = process.sacrifice(OOM_SCORE) {
            tracing::warn!(%error, pid = process.pid(), "when memory is out, the kernel may end the node before this worker");
        }
        let seat = match role {
            Role::Place(index) => Some(&shared.seats[index]),
            Role::Spare | Role::Trial => None,
        };
        let (load, counters) =
            seat.map(|seat| (Arc::clone(&seat.load), Arc::clone(&seat.counters))).unwrap_or_default();
        let (index, cpu) = seat.map(Seat::info).map_or((u32::MAX, None), |info| (info.index, info.cpu));
        let (hub, signaller) = (Arc::clone(&shared.hub), process.signaller());
        let lane = Lane::new(memory, index, event, hub, signaller, load, counters);
        let launch = Self {
            process,
            control: mine,
            lane: Arc::new(lane),
            fds: Some(fds),
            namespaces: plan.namespaces.clone(),
            step: Step::Start,
            shelf: Shelf::default(),
            counted,
            role,
            is_closed: false,
            answer_by: Instant::now() + ANSWER_WITHIN,
        };
        let start = Start {
            cpu,
            spin_ns_max: plan.spin_ns,
            stack_bytes: plan.stack_bytes,
            arena_bytes: plan.arena_bytes,
            init_bytes: plan.init_bytes,
            suspended_max: plan.suspended_max,
            modules_bytes_max: plan.modules_bytes_max,
            modules_max: plan.modules_max,
            cycle_rate: microfaas_sys::clock::known_rate(),
            node_pid: std::process::id(),
            sandbox: plan.sandbox,
        };
        // A worker that has died already is noticed by its process, with a better message.
        let _ = launch.send(&ToWorker::Start(start), &[count_in.as_fd()]);
        Ok(launch)
    }

    fn send(&self, message: &ToWorker, fds: &[BorrowedFd<'_>]) -> Result<(), LaunchError> {
        let packet = encode(message).map_err(|error| LaunchError::Socket(std::io::Error::other(error)))?;
        socket::send(self.control.as_fd(), &packet, fds).map_err(LaunchError::Socket)
    }

    /// Takes one packet from the control socket and asks the next question.
    pub(crate) fn answer(&mut self, shared: &Shared, rollout: &mut Rollout) -> Result<Progress, LaunchError> {
        let step = self.step;
        let message = self.receive()?;
        match (step, message) {
            (_, ToNode::Fatal { reason }) => Err(LaunchError::Fatal(printable(reason.as_bytes()))),
            // To make room for what is being loaded.
            (Step::Load(_), ToNode::Evicted { module, stayed_bytes })
                if self.shelf.evicted(module, stayed_bytes) =>
            {
                Ok(Progress::Asked)
            }
            (Step::Start, ToNode::Started) => {
                self.ask_lane()?;
                Ok(Progress::Asked)
            }
            (Step::AddLane, ToNode::LaneAdded { lane: 0 }) => {
                self.step(Step::Seal);
                let fds: Vec<_> = self.namespaces.iter().flat_map(|all| all.descriptors()).collect();
                self.send(&ToWorker::Seal, &fds).map(|()| Progress::Asked)
            }
            (Step::Seal, ToNode::Sealed) => self.ask_module(rollout),
            (Step::Load(part), ToNode::Loaded { module, writable_bytes, init_bytes, bytes })
                if module == part =>
            {
                tracing::debug!(role = ?self.role, module, writable_bytes, init_bytes, bytes, "loaded");
                self.shelf.loaded(bytes);
                self.ask_module(rollout)
            }
            (Step::Load(part), ToNode::LoadFailed { module, reason }) if module == part => {
                self.shelf.answered();
                let path = rollout.path(part).unwrap_or_default();
                // What is being deployed is not this worker's fault, and what is wanted no more none at all.
                if !rollout.refused(shared, part, &reason) && rollout.path(part).is_some() {
                    return Err(LaunchError::LoadFailed { path, reason: printable(reason.as_bytes()) });
                }
                self.ask_module(rollout)
            }
            (Step::Shelve, ToNode::Shelved) => {
                self.shelf.answered();
                self.ask_module(rollout)
            }
            (Step::Serve, ToNode::Ready { sandbox }) => Ok(Progress::Up(readable(sandbox))),
            _ => Err(LaunchError::Protocol { step: step.name() }),
        }
    }

    fn receive(&self) -> Result<ToNode, LaunchError> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let packet = socket::try_recv(self.control.as_fd(), &mut buffer, 0).map_err(LaunchError::Socket)?;
        if packet.len == 0 {
            return Err(LaunchError::Socket(std::io::ErrorKind::UnexpectedEof.into()));
        }
        decode(&buffer[..packet.len]).map_err(|_| LaunchError::Protocol { step: self.step.name() })
    }

    /// Why it has ended, where it has said so.
    pub(crate) fn last_words(&self) -> Option<LaunchError> {
        (0..LAST_PACKETS).map_while(|_| self.receive().ok()).find_map(|message| match message {
            ToNode::Fatal { reason } => Some(LaunchError::Fatal(printable(reason.as_bytes()))),
            _ => None,
        })
    }

    /// It has closed its control socket.
    pub(crate) fn closes(&mut self) {
        self.is_closed = true;
        self.answer_by = self.answer_by.min(Instant::now() + LAST_WORDS);
    }

    /// Whether nothing more is heard of it.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Its process, and what is readable when there is something to do: a socket that is closed always is.
    pub(crate) fn descriptors(&self) -> (&Process, BorrowedFd<'_>) {
        let control = if self.is_closed { self.process.as_fd() } else { self.control.as_fd() };
        (&self.process, control)
    }

    fn step(&mut self, step: Step) {
        self.answer_by = Instant::now() + step.within();
        self.step = step;
    }

    fn ask_lane(&mut self) -> Result<(), LaunchError> {
        self.step(Step::AddLane);
        let Some(fds) = self.fds.take() else {
            return Err(LaunchError::Protocol { step: self.step.name() });
        };
        let spec = LaneSpec { lane: 0, geometry: *self.lane.host.geometry(), copies: false };
        let list = [self.lane.event.as_fd(), fds.down.as_fd(), fds.bulk.as_fd(), fds.up.as_fd()];
        self.send(&ToWorker::AddLane(spec), &list)
    }

    /// Asks for the next part that the worker is to have, or to serve.
    fn ask_module(&mut self, rollout: &Rollout) -> Result<Progress, LaunchError> {
        let Some(errand) = rollout.errand(&self.shelf, self.role) else {
            if self.role == Role::Trial {
                return Ok(Progress::Tried);
            }
            self.step(Step::Serve);
            return self.send(&ToWorker::Serve, &[]).map(|()| Progress::Asked);
        };
        self.step(match errand {
            Errand::Load { part, .. } => Step::Load(part),
            Errand::Shelve { .. } => Step::Shelve,
        });
        let (message, fds) = errand.begin(&mut self.shelf);
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.send(&message, &fds).map(|()| Progress::Asked)
    }

    /// A process that is [up](Progress::Up), as this generation of its place, with what it counts in.
    pub(crate) fn finish(self, generation: u32) -> (Live, Region) {
        (Live::new(self.process, Talk::new(self.control, generation), self.lane, self.shelf), self.counted)
    }

    /// The worker took too long over the last question.
    pub(crate) fn silent(&self) -> LaunchError {
        if self.is_closed {
            return LaunchError::Socket(std::io::ErrorKind::UnexpectedEof.into());
        }
        LaunchError::Silent { step: self.step.name(), seconds: self.step.within().as_secs() }
    }
}

/// A worker's word, which comes after the first code of modules has run in it: each layer once, with a line of printable text. So it can be logged, and fits the packet by
/// which attached hosts are told of it.
fn readable(report: SandboxReport) -> SandboxReport {
    let mut readable = SandboxReport::default();
    for mut entry in report.entries {
        if readable.state(entry.layer).is_some() {
            continue;
        }
        if let LayerState::Refused(reason) | LayerState::NotAsked(reason) = &mut entry.state {
            *reason = printable(reason.as_bytes()).chars().take(REASON_CHARS_MAX).collect();
        }
        readable.entries.push(entry);
    }
    readable
}

#[cfg(test)]
mod tests {
    use microfaas_control::attach;
    use microfaas_control::sandbox::{Layer, LayerReport};

    use super::*;

    /// As of a worker that was taken over while it loaded its modules.
    #[test]
    fn hosts_can_be_told_whatever_a_worker_says_of_its_sandbox() {
        let layers =
            [Layer::NoNewPrivileges, Layer::Landlock, Layer::NotDumpable, Layer::Limits, Layer::DataLimit];
        let entry =
            |layer, reason: &str| LayerReport { layer, state: LayerState::Refused(reason.to_owned()) };
        let long = "\u{1b}[2J\u{1f980}\"\\".repeat(600);
        let mut entries: Vec<_> = layers.iter().map(|layer| entry(*layer, &long)).collect();
        entries.extend((0..100).map(|_| entry(Layer::Landlock, "again")));
        let packet = encode(&ToNode::Ready { sandbox: SandboxReport { entries } }).unwrap();
        let ToNode::Ready { sandbox } = decode(&packet).unwrap() else { panic!() };
        let sandbox = readable(sandbox);
        assert_eq!(sandbox.entries.len(), layers.len());
        for (_, reason) in sandbox.refused() {
            assert!(reason.chars().count() == REASON_CHARS_MAX && !reason.contains('\u{1b}'), "{reason}");
        }
        // There are not four times as many layers.
        let worker = attach::Worker { index: 0, pid: None, cpu: None, generation: 1, restarts: 0, sandbox };
        assert!(encode(&attach::ToHost::Worker(worker)).unwrap().len() < PACKET_BYTES_MAX / 4);
    }
}
