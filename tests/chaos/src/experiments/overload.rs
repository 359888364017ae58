//! More is asked for than there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_node::Status;

use crate::ledger::Ledger;
use crate::load::Load;
use crate::stage::{Stage, enter};
use crate::trial::{Stop, Trial};

/// Of the function that is flooded: long enough for two threads to ask for many times what a worker can do.
const SPIN_US: u64 = 300;

fn flood() -> Load {
    Load {
        window: 100,
        threads: 4,
        functions: vec!["answer_flood"],
        spin_us: SPIN_US..SPIN_US + 1,
        pause: Duration::from_micros(50),
        open_loop: true,
        ..Load::default()
    }
}

/// Calls that ended OK per second of a ledger, in this time.
fn goodput(ledger: &Ledger, time: Duration) -> f64 {
    let (start, before) = (Instant::now(), ledger.outcomes(Status::Ok));
    std::thread::sleep(time);
    (ledger.outcomes(Status::Ok) - before) as f64 / start.elapsed().as_secs_f64()
}

/// K20. What cannot be taken is refused at once; what was taken is answered.
pub(super) fn more_than_capacity(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start_with(trial, |builder| builder.slots(32, 4))?;
    let spin_us = SPIN_US..SPIN_US + 1;
    let closed =
        stage.load(&Load { spin_us: spin_us.clone(), pause: Duration::ZERO, ..Load::default() }, trial);
    let peak = goodput(&stage.ledger, trial.time.mul_f64(0.25));
    trial.verdict.problems.extend(closed.stop());
    // Ten threads with more on their way than there are slots: whoever is refused asks again at once.
    let load = Load {
        threads: 10,
        window: 16,
        pause: Duration::from_micros(20),
        open_loop: true,
        spin_us,
        ..Load::default()
    };
    let running = stage.load(&load, trial);
    let during = goodput(&stage.ledger, trial.time.mul_f64(0.4));
    trial.verdict.problems.extend(running.stop());
    trial.figure("goodput_peak", peak);
    trial.figure("goodput_overloaded", during);
    let refused = stage.ledger.counts().refused;
    trial.expect(refused > 0, || "nothing was refused".to_owned());
    trial.expect(during > 0.0, || "nothing was answered under overload".to_owned());
    stage.finish(Vec::new(), trial);
    Ok(())
}

/// K22. The others get on.
pub(super) fn one_function_floods(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?;
    let honest = Load { threads: 1, window: 1, ..Load::default() };
    let mine = Arc::new(Ledger::new(1 << 18));
    let alone = honest.start(&stage.node, &mine, &mut trial.random);
    let before = goodput(&mine, trial.time.mul_f64(0.2));
    trial.verdict.problems.extend(alone.stop());
    let hog = stage.load(&flood(), trial);
    std::thread::sleep(trial.time.mul_f64(0.1));
    let beside = honest.start(&stage.node, &mine, &mut trial.random);
    let during = goodput(&mine, trial.time.mul_f64(0.3));
    trial.verdict.problems.extend(beside.stop());
    trial.verdict.problems.extend(hog.stop());
    trial.figure("honest_per_s_alone", before);
    trial.figure("honest_per_s_beside_flood", during);
    trial.figure("honest_refused", mine.counts().refused as f64);
    trial.expect(during > 0.0, || "a function starves while another is flooded".to_owned());
    enter(&mine, trial);
    // The node's counters have both.
    stage.finish_with(Vec::new(), trial, false);
    Ok(())
}
