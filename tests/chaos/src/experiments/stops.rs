//! Workers are stopped, which no descriptor tells.

use std::time::Duration;

use microfaas_node::{RestartCause, Status};
use nix::sys::signal::Signal;

use crate::load::Load;
use crate::stage::{HEAL, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::{Worker, until};

const STALL: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_millis(200);

/// K03. Calls end at their deadlines, the worker is replaced, and what it would say after it is continued counts for nothing: it is dead.
pub(super) fn longer_than_a_stall(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start_with(trial, |builder| builder.stall(STALL))?;
    let stage = stage.loses(&[RestartCause::Hung, RestartCause::Silent]);
    let load = Load {
        deadline: DEADLINE..2 * DEADLINE,
        may_end: &[Status::Timeout, Status::Expired, Status::WorkerLost],
        ..Load::default()
    };
    let running = stage.load(&load, trial);
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
