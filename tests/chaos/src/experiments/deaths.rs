//! Workers die.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use microfaas_node::{RestartCause, Status, WorkerState};

use crate::load::Load;
use crate::stage::{HEAL, Stage, has_spares, serves};
use crate::trial::{Stop, Trial};
use crate::victim::{Worker, until};

/// Kills of each worker in one round.
const KILLS: usize = 10;
const WORKERS: usize = 2;

/// K01. More is asked for than the cores can do.
pub(super) fn one_at_a_time(trial: &mut Trial) -> Result<(), Stop> {
    let load = Load { may_end: &[Status::WorkerLost], moves: true, hang_up: 50, ..Load::default() };
    let again = Load { functions: vec!["answer_again"], threads: 2, ..load.clone() };
    kill_one_at_a_time(trial, &[load, again])
}

/// D02. The cores have time to spare.
pub(super) fn one_at_a_time_under_light_load(trial: &mut Trial) -> Result<(), Stop> {
    let pause = Duration::from_millis(2);
    let load = Load { threads: 1, window: 4, pause, may_end: &[Status::WorkerLost], ..Load::default() };
    kill_one_at_a_time(trial, &[load])
}

/// Each round has a new node, so that starting and stopping are tried, too. No replacement has to wait: that would measure the pause.
fn kill_one_at_a_time(trial: &mut Trial, loads: &[Load]) -> Result<(), Stop> {
    while !trial.is_over(0.8) {
        let stage = Stage::start_with(trial, |builder| builder.restarts(u32::MAX))?;
        let stage = stage.loses(&[RestartCause::Died]);
        let loads = loads.iter().map(|load| stage.load(load, trial)).collect();
        let mut killed = 0;
        for kill in 0..KILLS * WORKERS {
            // Every other time there may be no spare yet.
            if kill % 4 < WORKERS && !until(HEAL, || has_spares(&stage.node)) {
                trial.expect(false, || format!("no spare: {:?}", stage.node.spares()));
            }
            std::thread::sleep(trial.some_time(Duration::from_millis(30)));
            let Some(worker) = Worker::of(&stage.node, kill % WORKERS)? else { continue };
            let waits = has_spares(&stage.node);
            trial.event();
            killed += 1;
            match worker.kill_and_wait(&stage.node, HEAL)? {
                Some(time) if waits => trial.verdict.replace_ms.push(time.as_secs_f64() * 1000.0),
                Some(time) => trial.verdict.replace_started_ms.push(time.as_secs_f64() * 1000.0),
                None => trial.expect(false, || format!("worker {} is not replaced", worker.index)),
            }
        }
        let counted = stage.replaced_for(RestartCause::Died);
        trial
            .expect(counted == killed, || format!("{killed} kills, {counted} workers are said to have died"));
        stage.finish(loads, trial);
    }
    let kills = trial.verdict.replace_ms.len() + trial.verdict.replace_started_ms.len();
    trial.expect(kills > 0, || "no worker was killed".to_owned());
    trial.figure("kills", kills as f64);
    Ok(())
}

/// K02. The pauses between replacements must come, and go.
pub(super) fn all_at_once(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?.loses(&[RestartCause::Died]);
    let load = stage.load(&Load { may_end: &[Status::WorkerLost], ..Load::default() }, trial);
    let (mut killed, mut paused) = (BTreeSet::new(), false);
    // How many ends are too many goes by a time: where processes start slowly it takes longer to get there.
    let by = Instant::now() + HEAL;
    while !(paused && trial.is_over(0.6)) && Instant::now() < by {
        for index in 0..WORKERS {
            if let Some(worker) = Worker::of(&stage.node, index)? {
                worker.process.kill()?;
                trial.event();
                killed.insert(worker.process.pid);
            }
        }
        paused |= stage.node.workers().iter().any(|worker| worker.state == WorkerState::BackingOff);
        std::thread::sleep(Duration::from_millis(100));
        paused |= stage.node.workers().iter().any(|worker| worker.state == WorkerState::BackingOff);
    }
    let kills = killed.len() as u64;
    trial.expect(paused, || format!("{kills} kills, and no replacement had to wait"));
    trial.figure("kills", kills as f64);
    stage.heal(trial);
    let counted = stage.replaced_for(RestartCause::Died);
    trial.expect(counted >= kills, || format!("{kills} kills, {counted} restarts are counted"));
    stage.finish(vec![load], trial);
    Ok(())
}

/// D01. No replacement has to wait. Throughput before, in calls that ended OK per second, its share in each tenth of a second meanwhile, and how long it takes until it is back at nine tenths.
pub(super) fn one_of_two(trial: &mut Trial) -> Result<(), Stop> {
    let time = trial.time.mul_f64(0.3);
    let stage = Stage::start_with(trial, |builder| builder.restarts(u32::MAX))?;
    let stage = stage.loses(&[RestartCause::Died]);
    let load =
        Load { may_end: &[Status::WorkerLost], spin_us: 50..51, pause: Duration::ZERO, ..Load::default() };
    let running = stage.load(&load, trial);
    let rate = |time: Duration| {
        let (start, before) = (Instant::now(), stage.ledger.outcomes(Status::Ok));
        std::thread::sleep(time);
        (stage.ledger.outcomes(Status::Ok) - before) as f64 / start.elapsed().as_secs_f64()
    };
    let mut before = 0.0;
    until(HEAL, || {
        before = rate(time);
        before > 0.0
    });
    trial.expect(before > 0.0, || "nothing is served before a worker is killed".to_owned());
    let (end, mut kills) = (Instant::now() + time, 0);
    while Instant::now() < end {
        if let Some(worker) = Worker::of(&stage.node, 0)? {
            worker.process.kill()?;
            trial.event();
            kills += 1;
        }
        trial.sample("throughput_killing_share", rate(Duration::from_millis(100)) / before.max(1.0));
    }
    trial.figure("kills", f64::from(kills));
    trial.expect(kills > 0, || "no worker was killed".to_owned());
    let healed = Instant::now();
    until(HEAL, || serves(&stage.node));
    let recovered = until(HEAL, || rate(Duration::from_millis(50)) >= 0.9 * before);
    trial.figure("throughput_before", before);
    trial.figure("throughput_recovery_ms", healed.elapsed().as_secs_f64() * 1000.0);
    trial.expect(recovered, || format!("throughput does not come back to nine tenths of {before}"));
    stage.finish(vec![running], trial);
    Ok(())
}
