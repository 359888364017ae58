//! What ends is about to start, or waits to.

use std::time::Duration;

use microfaas_node::{RestartCause, Status};

use crate::load::Load;
use crate::stage::{HEAL, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::{Victim, Worker};

fn load() -> Load {
    Load { may_end: &[Status::WorkerLost], ..Load::default() }
}

/// D03. Spares end as soon as they are there, or before: workers that end are replaced by processes that have to be started, and spares come back.
pub(super) fn spares_die(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?.loses(&[RestartCause::Died, RestartCause::Launch]);
    let running = stage.load(&load(), trial);
    let (mut rounds, mut kills) = (0, 0);
    while !trial.is_over(0.5) {
        let spares = stage.node.spares();
        for pid in spares.ready.into_iter().chain(spares.starting) {
            if let Some(spare) = Victim::open(pid)? {
                spare.kill()?;
                trial.event();
                kills += 1;
            }
        }
        if rounds % 10 == 0
            && let Some(worker) = Worker::of(&stage.node, rounds / 10 % 2)?
        {
            trial.event();
            let replaced = worker.kill_and_wait(&stage.node, HEAL)?;
            trial.expect(replaced.is_some(), || format!("worker {} is not replaced", worker.index));
        }
        rounds += 1;
        std::thread::sleep(trial.some_time(Duration::from_millis(20)));
    }
    let ended = stage.node.spares().ended;
    trial.figure("kills", f64::from(kills));
    trial.expect(kills > 0 && ended > 0, || format!("{kills} spares were killed, {ended} have ended"));
    stage.finish(vec![running], trial);
    Ok(())
}

/// D04. Each deployment succeeds all the same, and from then on nobody is answered by what was there before.
pub(super) fn workers_die_while_deploying(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start_with(trial, |builder| builder.restarts(u32::MAX))?;
    let stage = stage.loses(&[RestartCause::Died]);
    let running = stage.load(&load(), trial);
    let (mut version, mut kills) = (0, 0);
    while version == 0 || !trial.is_over(0.7) {
        version += 1;
        let path = stage.put_version(version, trial)?;
        let (pause, index) = (trial.some_time(Duration::from_millis(40)), trial.random.usize(..2));
        trial.event();
        let (deployed, killed) = std::thread::scope(|scope| {
            let deployment = scope.spawn(|| stage.node.deploy(&path).map(drop));
            std::thread::sleep(pause);
            let killed = Worker::of(&stage.node, index).and_then(|worker| {
                worker.iter().try_for_each(|worker| worker.process.kill())?;
                Ok(usize::from(worker.is_some()))
            });
            (deployment.join(), killed)
        });
        kills += killed?;
        let deployed = deployed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match deployed {
            Ok(()) => running.watch().version.store(version, std::sync::atomic::Ordering::SeqCst),
            Err(error) => trial.expect(false, || format!("version {version}: {error}")),
        }
    }
    trial.figure("kills", kills as f64);
    trial.figure("deployments", f64::from(version));
    stage.finish(vec![running], trial);
    Ok(())
}
