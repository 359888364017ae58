//! More modules are called than there is room for.

use std::time::Duration;

use microfaas_node::{FunctionConfig, Loading, Request, RestartCause, Status};

use crate::load::Load;
use crate::modules::{numbered_answer, numbered_name, put};
use crate::stage::{HEAL, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::{Worker, until};

/// Modules beside the one that answers, which stays.
const MODULES: u32 = 12;
/// How many there is room for.
const ROOM: u32 = 4;
/// A module that comes and goes.
const AGAIN: &str = "again.so";
/// Workers that are killed: as many as are replaced at once.
const KILLS: usize = 8;

/// C01. Each call finds its module cold, or makes another so, while workers are killed, some of them as they load, and another module comes and goes: no
/// call is lost or answered by another module, and afterwards there is room again.
pub(super) fn crowded(trial: &mut Trial) -> Result<(), Stop> {
    let at_start = FunctionConfig::default().load(Loading::Start);
    let mut stage = Stage::start_with(trial, |builder| {
        builder.load_default(Loading::FirstCall).modules_max(ROOM).function("answer", at_start)
    })?
    .loses(&[RestartCause::Died, RestartCause::Stayed]);
    for number in 1..=MODULES {
        let file = format!("{}.so", numbered_name(number));
        stage.node.deploy(put(stage.folder(), &file, &trial.modules.numbered(number))?)?;
    }
    call_at_random(&stage, trial.random.u64(..), || false, 40 * MODULES).map_err(Stop::Failed)?;
    // What was removed, the node keeps to bring it back.
    let again = put(stage.folder(), AGAIN, &trial.modules.numbered(0))?;
    stage.node.deploy(&again)?;
    stage.node.remove(AGAIN)?;
    stage.measure();
    let running = stage.load(&Load { may_end: &[Status::WorkerLost], ..Load::default() }, trial);
    let mut calls = 0;
    for kill in 0..=KILLS {
        trial.event();
        let seeds: [u64; 3] = std::array::from_fn(|_| trial.random.u64(..));
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let until = 0.8 * (kill + 1) as f64 / (KILLS + 1) as f64;
        let pause = trial.some_time(Duration::from_millis(20));
        let is_over = || trial.is_over(until);
        let results = std::thread::scope(|scope| {
            let (stage, node) = (&stage, &stage.node);
            let callers: Vec<_> = seeds
                .iter()
                .map(|seed| scope.spawn(move || call_at_random(stage, *seed, is_over, u32::MAX)))
                .collect();
            std::thread::sleep(pause);
            if kill < KILLS {
                for worker in Worker::of(node, kill % 2).into_iter().flatten() {
                    let _ = worker.process.kill();
                }
            }
            let deployed = node.deploy(&again).and_then(|_| node.remove(AGAIN));
            let mut results: Vec<Result<u64, String>> = callers
                .into_iter()
                .map(|caller| caller.join().unwrap_or_else(|_| Err("panic".into())))
                .collect();
            results.extend(deployed.err().map(|error| Err(error.to_string())));
            results
        });
        for result in results {
            match result {
                Ok(made) => calls += made,
                Err(problem) => trial.expect(false, || problem),
            }
        }
    }
    let stocked = || stage.node.metrics().workers.into_iter().map(|worker| worker.stocked);
    let has_room = until(HEAL, || stocked().all(|stocked| stocked.modules <= u64::from(ROOM)));
    trial.expect(has_room, || {
        format!("more is loaded than there is room for: {:?}", stocked().collect::<Vec<_>>())
    });
    trial.figure("cold_calls", calls as f64);
    trial.figure("cold_loads", stocked().map(|stocked| stocked.cold_loads).sum::<u64>() as f64);
    trial.figure("evictions", stocked().map(|stocked| stocked.evictions).sum::<u64>() as f64);
    stage.finish(vec![running], trial);
    Ok(())
}

/// Calls numbered functions until it is over, or so often; how often that was.
///
/// # Errors
/// A call that ended as none may.
fn call_at_random(stage: &Stage, seed: u64, is_over: impl Fn() -> bool, most: u32) -> Result<u64, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut made = 0;
    while made < u64::from(most) && !is_over() {
        let number = random.u32(1..=MODULES);
        let name = numbered_name(number);
        let answer = stage.call(name.as_str(), Request::new(b"").deadline(HEAL));
        let right = match answer.status {
            Status::Ok => answer.body == numbered_answer(number),
            // It had started when its worker was killed, or there was none for a moment.
            Status::WorkerLost | Status::Overloaded => true,
            _ => false,
        };
        if !right {
            return Err(format!("{name} ended {}: {}", answer.status, answer.detail));
        }
        made += 1;
    }
    Ok(made)
}
