//! Workers, hosts and nodes are stopped, which no descriptor tells.

use std::time::Duration;

use microfaas_node::{RestartCause, Status};
use nix::sys::signal::Signal;

use crate::experiments::hosts::SOCKET;
use crate::experiments::served::Served;
use crate::footprint::{descendants, parent_and_state};
use crate::load::{Load, Running};
use crate::role::{Manner, Role, told};
use crate::stage::{HEAL, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::{Worker, until};

const STALL: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_millis(200);
/// After which workers are to blame that are not stopped: they have to have had the core by then.
const PATIENCE: Duration = Duration::from_millis(600);

/// Under load, with workers that are replaced when they are stopped for longer than [`STALL`], and calls that have ended by then.
fn stage_with_stalls(trial: &mut Trial) -> Result<(Stage, Running), Stop> {
    let stage = Stage::start_with(trial, |builder| builder.stall(STALL))?;
    let stage = stage.loses(&[RestartCause::Hung, RestartCause::Silent]);
    let load = Load {
        deadline: DEADLINE..2 * DEADLINE,
        may_end: &[Status::Timeout, Status::Expired, Status::WorkerLost],
        ..Load::default()
    };
    let running = stage.load(&load, trial);
    Ok((stage, running))
}

/// K03. Calls end at their deadlines, the worker is replaced, and what it would say after it is continued counts for nothing: it is dead.
pub(super) fn longer_than_a_stall(trial: &mut Trial) -> Result<(), Stop> {
    let (stage, running) = stage_with_stalls(trial)?;
    let mut stops = 0;
    while !trial.is_over(0.6) {
        std::thread::sleep(trial.some_time(Duration::from_millis(50)));
        let Some(worker) = Worker::of(&stage.node, trial.random.usize(..2))? else { continue };
        worker.process.send(Signal::SIGSTOP)?;
        stops += 1;
        trial.event();
        let replaced = until(HEAL, || worker.is_replaced(&stage.node));
        trial.expect(replaced, || format!("worker {} is stopped and not replaced", worker.index));
        worker.process.send(Signal::SIGCONT)?;
        let ended = worker.process.ends_within(HEAL)?;
        trial.expect(ended, || format!("worker {} was replaced and lives", worker.index));
        if !replaced {
            break;
        }
    }
    trial.figure("stops", f64::from(stops));
    stage.finish(vec![running], trial);
    Ok(())
}

/// S01. A worker that comes back in time goes on with what it has.
pub(super) fn shorter_than_a_stall(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start_with(trial, |builder| builder.stall(HEAL))?;
    let running = stage.load(&Load::default(), trial);
    let pids = |stage: &Stage| stage.node.workers().iter().map(|worker| worker.pid).collect::<Vec<_>>();
    let (before, mut stops) = (pids(&stage), 0);
    while !trial.is_over(0.6) {
        let Some(worker) = Worker::of(&stage.node, trial.random.usize(..2))? else { continue };
        worker.process.send(Signal::SIGSTOP)?;
        std::thread::sleep(trial.some_time(Duration::from_millis(40)));
        worker.process.send(Signal::SIGCONT)?;
        std::thread::sleep(trial.some_time(Duration::from_millis(10)));
        stops += 1;
        trial.event();
    }
    let after = pids(&stage);
    trial.expect(before == after, || format!("workers {before:?} were replaced by {after:?}"));
    trial.figure("stops", f64::from(stops));
    stage.finish(vec![running], trial);
    Ok(())
}

/// S02. As by a debugger at its prompt: whatever is done to the worker, its end is the debugger's to take. It is replaced all the same, the node goes on, and when the debugger
/// has let go of it nothing is left.
pub(super) fn traced(trial: &mut Trial) -> Result<(), Stop> {
    let (stage, running) = stage_with_stalls(trial)?;
    let mut version = 0;
    while version == 0 || !trial.is_over(0.6) {
        let Some(worker) = Worker::of(&stage.node, trial.random.usize(..2))? else { continue };
        let tracer = Role::tracer(&worker.process);
        let tracer = tracer.map_err(|stop| Stop::Skip(format!("nobody may trace a worker: {stop}")))?;
        trial.event();
        let replaced = until(HEAL, || worker.is_replaced(&stage.node));
        trial.expect(replaced, || format!("worker {} is traced and not replaced", worker.index));
        let ended = worker.process.ends_within(HEAL)?;
        trial.expect(ended, || format!("worker {} was replaced and lives", worker.index));
        // The node does all that it has to do, though it cannot reap that one.
        version += 1;
        stage.node.deploy(stage.put_version(version, trial)?)?;
        drop(tracer);
        let pid = worker.process.pid;
        let gone = until(HEAL, || parent_and_state(pid).is_none());
        trial.expect(gone, || format!("process {pid} is left when nobody traces it any more"));
    }
    stage.finish(vec![running], trial);
    Ok(())
}

/// S03. A host that is stopped in the middle of submissions holds up nobody, and goes on with what has come for it.
pub(super) fn attached_host(trial: &mut Trial) -> Result<(), Stop> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join(SOCKET);
    let mut stage =
        Stage::start_with(trial, |builder| builder.socket(&socket).stall(PATIENCE).heartbeat(PATIENCE))?;
    stage.guests = true;
    let running = stage.load(&Load::default(), trial);
    let mut host = Role::host(&socket, Manner::Load, trial.random.u64(..))?;
    while !trial.is_over(0.6) {
        std::thread::sleep(trial.some_time(Duration::from_millis(50)));
        trial.event();
        host.process.send(Signal::SIGSTOP)?;
        std::thread::sleep(PATIENCE + STALL);
        host.process.send(Signal::SIGCONT)?;
    }
    std::thread::sleep(Duration::from_millis(50));
    match told(&host.ask()?) {
        Ok(told) => {
            let counts = told.counts;
            trial.expect(counts.ok > 0 && counts.ok == counts.completed, || {
                format!("a host that was stopped: {counts:?}")
            });
            trial.verdict.counts.add(counts);
        }
        Err(said) => trial.expect(false, || format!("a host that was stopped: {said}")),
    }
    host.wait()?;
    stage.finish(vec![running], trial);
    Ok(())
}

/// N01. Calls need no node: attached hosts are served on while it is stopped, for longer than their deadlines, and nobody is to blame when it goes on.
pub(super) fn node(trial: &mut Trial) -> Result<(), Stop> {
    let served = Served::start(trial)?;
    let load = Load {
        deadline: DEADLINE..2 * DEADLINE,
        may_end: &[Status::Timeout, Status::Expired],
        ..Load::default()
    };
    let running = load.start(&served.host, &served.ledger, &mut trial.random);
    let Some(server) = served.server.as_ref().map(|server| server.process.clone()) else {
        return Err(Stop::Failed("there is no node".to_owned()));
    };
    let processes = || descendants(server.pid).into_iter().map(|(pid, _)| pid).collect::<Vec<_>>();
    let before = processes();
    while !trial.is_over(0.6) {
        std::thread::sleep(trial.some_time(Duration::from_millis(50)));
        trial.event();
        server.send(Signal::SIGSTOP)?;
        let ok = served.ledger.outcomes(Status::Ok);
        let goes_on = until(HEAL, || served.ledger.outcomes(Status::Ok) > ok + 100);
        trial.expect(goes_on, || "nothing is answered while the node is stopped".to_owned());
        std::thread::sleep(3 * DEADLINE);
        server.send(Signal::SIGCONT)?;
    }
    std::thread::sleep(Duration::from_millis(100));
    let after = processes();
    trial.expect(before == after, || {
        format!("processes {before:?} of a node that was stopped became {after:?}")
    });
    trial.verdict.problems.extend(running.stop());
    served.finish(trial);
    Ok(())
}
