//! The supervisor's part step by step: places with processes that wait for their ends, and lanes whose workers are played by the test.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU8;
use std::sync::mpsc::sync_channel;

use microfaas_control::Loading;
use microfaas_control::sandbox::{SandboxPolicy, SandboxReport};
use microfaas_lane::Status;
use microfaas_lane::layout::Geometry;
use microfaas_metrics::Region;
use microfaas_sys::process::{self, Spawn};
use microfaas_sys::program::Program;
use microfaas_sys::socket;

use super::*;
use crate::Call;
use crate::call::Prepared;
use crate::command::Talk;
use crate::function::Settings;
use crate::lane::Lane;
use crate::live::Live;
use crate::metrics::RestartCause;
use crate::moves::tests::{Player, lane, node};
use crate::names::Entry;
use crate::notice::History;
use crate::registry::Registry;
use crate::shelf::Shelf;
use crate::spare::Spare;

/// What a worker is started as here.
const PROGRAM: &str = "#!/bin/sh\nexec sleep 600\n";

/// A node whose supervisor does what the test has it do. What it started ends with it.
struct Stage {
    supervisor: Supervisor,
    players: Vec<Player>,
    /// The workers' ends of their control sockets.
    ends: Vec<OwnedFd>,
    _folder: tempfile::TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.supervisor.stop_all();
    }
}

impl Stage {
    /// Every worker serves. `restarts`: how many of their ends are made good at once.
    fn new(workers: u32, restarts: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("worker");
        std::fs::write(&program, PROGRAM).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let plan = Plan {
            program: Program::hold(&program).unwrap(),
            env: Vec::new(),
            geometry: Geometry::default(),
            spin_ns: 0,
            stack_bytes: 0,
            arena_bytes: 0,
            init_bytes: 0,
            suspended_max: 0,
            modules_bytes_max: 0,
            modules_max: 0,
            sandbox: SandboxPolicy::default(),
            namespaces: None,
        };
        let (shared, lanes) = node(workers);
        let (load, deadline) = (Loading::Start, Duration::MAX);
        let settings = Settings { functions: Vec::new(), deadline, ban_after: 0, load };
        let rollout = Rollout::new(Registry::new(settings), Arc::clone(&shared.stock));
        let heartbeat = Duration::MAX;
        let patience = Patience { stall_ns: u64::MAX, heartbeat, restarts, spares: 0 };
        let (_, inbox) = std::sync::mpsc::channel();
        let (started, _) = sync_channel(1);
        let mut supervisor = Supervisor::new(shared, plan, rollout, patience, inbox, started);
        supervisor.started = None;
        let mut stage = Self { supervisor, players: Vec::new(), ends: Vec::new(), _folder: folder };
        for (index, (lane, player)) in lanes.into_iter().enumerate() {
            let live = stage.process(lane);
            let supervisor = &mut stage.supervisor;
            supervisor.shared.seats[index].update(|info| {
                (info.pid, info.generation) = (Some(live.process.pid()), info.generation + 1);
            });
            let counted = Region::create().unwrap().0;
            supervisor.serving(index, Box::new(live), counted, SandboxReport::default());
            supervisor.open_when_ready(index);
            stage.players.push(player);
        }
        stage
    }

    /// A process that waits for its end, as a worker that is up.
    fn process(&mut self, lane: Arc<Lane>) -> Live {
        let (near, far) = socket::pair().unwrap();
        let args = ["600".into()];
        let program = Program::hold(Path::new("/bin/sleep")).unwrap();
        let spawn = Spawn { program: &program, args: &args, env: &[], fd: far.as_fd(), number: 3 };
        let process = process::spawn(&spawn).unwrap();
        self.ends.push(far);
        Live::new(process, Talk::new(near, 1), lane, Shelf::default())
    }

    fn pid(&self, index: usize) -> u32 {
        self.supervisor.places[index].descriptors().expect("a process").0.pid()
    }

    fn live(&mut self, index: usize) -> &mut Live {
        self.supervisor.places[index].live().expect("a worker that serves")
    }

    /// The process of this place is killed, and the supervisor learns it.
    fn kill(&mut self, index: usize) {
        let (process, _) = self.supervisor.places[index].descriptors().expect("a process");
        process.kill().unwrap();
        process.wait(None).unwrap();
        self.supervisor.look_at(index, true, false);
    }

    fn pauses_until(&self, index: usize) -> Instant {
        match self.supervisor.places[index] {
            Place::Pausing(until) => until,
            _ => panic!("{index} does not pause"),
        }
    }

    fn causes(&self, index: usize) -> Vec<(RestartCause, u64)> {
        let restarts = self.supervisor.shared.metrics().workers[index].restarts;
        RestartCause::ALL.into_iter().zip(restarts).filter(|(_, times)| *times > 0).collect()
    }

    fn restarts(&self) -> Vec<u32> {
        self.supervisor.shared.seats.iter().map(|seat| seat.info().restarts).collect()
    }
}

impl Stage {
    /// A call of a body that numbers it, at this worker.
    fn submit_to(&self, index: usize, number: usize) -> Call {
        let shared = &self.supervisor.shared;
        let lane = shared.seats[index].lane().expect("it serves");
        let reserved = lane.host.reserve(8).unwrap();
        lane.load().add();
        let mut prepared = Prepared::new(lane, reserved, 8);
        prepared.call(shared.names.resolve(0).unwrap(), History::new(0, false));
        prepared.buffer().copy_from_slice(&number.to_le_bytes());
        prepared.submit(8, &[], None).unwrap()
    }

    fn may_be_run_again(&self, is_idempotent: bool) {
        let names = &self.supervisor.shared.names;
        let entry = names.resolve(0).unwrap();
        names.publish(&[Some(Entry { is_idempotent, ..entry })]);
    }
}

#[test]
fn a_worker_that_does_not_end_when_it_was_told_to_is_killed() {
    for idempotent in [false, true] {
        let mut stage = Stage::new(2, 5);
        stage.may_be_run_again(idempotent);
        let started = stage.submit_to(0, 0);
        stage.players[0].begin();
        let waits = stage.submit_to(0, 1);
        let pid = stage.pid(0);
        stage.supervisor.recycle(0);
        stage.supervisor.look_at_clocks();
        assert!(stage.live(0).is_retiring() && stage.pid(0) == pid, "it has its time");
        assert!(stage.supervisor.shared.seats[0].load.is_leaving());
        assert_eq!((stage.restarts(), stage.causes(0)), (vec![0, 0], vec![]));
        stage.live(0).is_to_end_now();
        stage.supervisor.look_at_clocks();
        let [dying] = stage.supervisor.dying.as_slice() else { panic!("one process") };
        assert_eq!(dying.pid(), pid);
        assert!(matches!(dying.reap().unwrap(), Exit::Signal(9)));
        assert_eq!(stage.restarts(), [1, 0]);
        assert_eq!((stage.causes(0), stage.causes(1)), (vec![(RestartCause::Stayed, 1)], vec![]));
        // What it had not begun goes on elsewhere, and what it had where it may.
        let runs = [const { AtomicU8::new(0) }; 2];
        while stage.players[1].answer(&runs) {}
        let ran = runs.each_ref().map(|runs| runs.load(Ordering::Relaxed));
        assert_eq!(ran, [u8::from(idempotent), 1]);
        let (started, waits) = (started.wait(), waits.wait());
        assert_eq!((waits.status, waits.worker), (Status::Ok, Some(1)));
        match idempotent {
            true => assert_eq!((started.status, started.worker), (Status::Ok, Some(1))),
            false => {
                assert_eq!((started.status, started.worker), (Status::WorkerLost, Some(0)));
                assert!(!started.never_started);
            }
        }
        assert!(!stage.supervisor.shared.calls_are_out());
        // It was no fault of the next one.
        stage.supervisor.look_at_clocks();
        assert!(matches!(stage.supervisor.places[0], Place::Launching(_)) && stage.pid(0) != pid);
    }
}

/// One that comes while the supervisor makes up its mind.
#[test]
fn a_call_outlives_the_decision_to_replace_its_worker() {
    let mut stage = Stage::new(1, 5);
    stage.may_be_run_again(false);
    let (pid, call) = (stage.pid(0), stage.submit_to(0, 0));
    stage.supervisor.recycle(0);
    assert!(stage.live(0).is_retiring() && stage.pid(0) == pid);
    // It has not heard of it yet.
    assert!(stage.players[0].answer(&[AtomicU8::new(0)]));
    assert_eq!(call.wait().status, Status::Ok);
    stage.kill(0);
    assert_eq!((stage.restarts(), stage.causes(0)), (vec![1], vec![(RestartCause::Stayed, 1)]));
}

/// Otherwise it would be killed in the middle of an `init` that takes long, as if the module were to blame.
#[test]
fn a_worker_is_not_told_to_end_while_it_loads() {
    let mut stage = Stage::new(1, 5);
    let shelf = &mut stage.live(0).shelf;
    shelf.loads(1);
    shelf.loaded(0);
    shelf.unloads(1);
    shelf.answered();
    assert!(shelf.unloaded(1, STAYED_BYTES_MAX + 1));
    shelf.loads(2);
    stage.supervisor.roll_out();
    assert!(!stage.live(0).is_retiring());
    stage.live(0).shelf.answered();
    stage.supervisor.roll_out();
    assert!(stage.live(0).is_retiring());
}

#[test]
fn one_that_is_to_end_before_it_took_calls_takes_none() {
    let mut stage = Stage::new(1, 5);
    let Place::Serving { open, .. } = &mut stage.supervisor.places[0] else { panic!("it serves") };
    *open = false;
    stage.supervisor.shared.seats[0].close();
    stage.supervisor.recycle(0);
    stage.supervisor.open_when_ready(0);
    let seat = &stage.supervisor.shared.seats[0];
    assert!(seat.lane().is_none() && seat.load.get().is_none(), "calls would wait there for its end");
}

/// Where none is replaced at once, everybody waits for its own time.
#[test]
fn each_place_is_filled_when_its_own_time_has_come() {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut stage = Stage::new(3, 0);
    let pids = [0, 1, 2].map(|index| stage.pid(index));
    let ends = |stage: &mut Stage, index, pause| {
        let before = Instant::now();
        stage.kill(index);
        let until = stage.pauses_until(index);
        assert!(until >= before + pause && until <= Instant::now() + pause, "{index}");
        assert_eq!(stage.supervisor.shared.seats[index].info().state, WorkerState::BackingOff);
        until
    };
    let second = ends(&mut stage, 2, PAUSE);
    let last = ends(&mut stage, 0, PAUSE);
    assert!(second < last && stage.pauses_until(2) == second);
    let fill = |stage: &mut Stage, now| (0..3).for_each(|index| stage.supervisor.fill_when_due(index, now));
    let generations = |stage: &Stage| -> Vec<u32> {
        stage.supervisor.shared.seats.iter().map(|seat| seat.info().generation).collect()
    };
    fill(&mut stage, second - Duration::from_nanos(1));
    assert_eq!(generations(&stage), [1, 1, 1], "nobody's time has come");
    fill(&mut stage, second);
    assert_eq!((generations(&stage), stage.pauses_until(0)), (vec![1, 1, 2], last));
    assert!(stage.pid(2) != pids[2] && stage.pid(1) == pids[1]);
    fill(&mut stage, last);
    assert_eq!((generations(&stage), stage.restarts()), (vec![2, 1, 2], vec![1, 0, 1]));
    // One that never came up counts for its place, too, and for no other.
    ends(&mut stage, 2, 2 * PAUSE);
    assert_eq!(stage.restarts(), [1, 0, 2]);
    assert_eq!(stage.causes(2), [(RestartCause::Died, 1), (RestartCause::Launch, 1)]);
    assert_eq!((stage.causes(0), stage.causes(1)), (vec![(RestartCause::Died, 1)], vec![]));
    assert!(matches!(stage.supervisor.places[0], Place::Launching(_)) && stage.pid(1) == pids[1]);
}

/// As when a thread of a caller has just given an answer to its owner, who asks for the counts.
#[test]
fn a_worker_that_has_ended_keeps_its_place_until_its_answers_are_counted() {
    let mut stage = Stage::new(1, 5);
    let shared = Arc::clone(&stage.supervisor.shared);
    let lane = shared.seats[0].lane().expect("it serves");
    std::thread::scope(|scope| {
        let reader = lane.lock();
        let killed = scope.spawn(|| stage.kill(0));
        // Long enough for the supervisor to go on, if it did not wait.
        std::thread::sleep(Duration::from_millis(200));
        assert!(shared.seats[0].lane().is_some());
        drop(reader);
        killed.join().expect("it has ended");
    });
    assert!(shared.seats[0].lane().is_none());
}

#[test]
fn of_those_that_end_together_the_first_gets_the_spare_and_the_other_a_process() {
    let mut stage = Stage::new(3, 5);
    let pids = [0, 1, 2].map(|index| stage.pid(index));
    let (lane, _player) = lane(&stage.supervisor.shared, 0);
    let live = Box::new(stage.process(lane));
    let spare = live.process.pid();
    let counted = Region::create().unwrap().0;
    stage.supervisor.spares.add(Spare { live, counted, sandbox: SandboxReport::default() });
    for index in [2, 1] {
        let (process, _) = stage.supervisor.places[index].descriptors().unwrap();
        process.kill().unwrap();
        process.wait(None).unwrap();
    }
    stage.supervisor.wait_and_act(false);
    let serves = |place: &Place| matches!(place, Place::Serving { open: true, .. });
    assert!(serves(&stage.supervisor.places[0]) && serves(&stage.supervisor.places[1]));
    assert_eq!((stage.pid(0), stage.pid(1)), (pids[0], spare));
    assert!(matches!(stage.supervisor.places[2], Place::Launching(_)));
    let seen: Vec<_> =
        stage.supervisor.shared.seats.iter().map(|seat| (seat.info().pid, seat.info().state)).collect();
    let new = stage.pid(2);
    assert!(!pids.contains(&new) && new != spare);
    let states = [WorkerState::Serving, WorkerState::Serving, WorkerState::Starting];
    assert_eq!(seen, [pids[0], spare, new].map(Some).into_iter().zip(states).collect::<Vec<_>>());
    assert_eq!(stage.restarts(), [0, 1, 1]);
    let lanes: Vec<u32> = stage.supervisor.shared.lanes().map(|lane| lane.worker).collect();
    assert_eq!(lanes, [0, 1], "calls of the spare count for the place");
}
