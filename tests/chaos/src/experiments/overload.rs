//! More is asked for than there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_node::Status;

use crate::ledger::Ledger;
use crate::load::Load;
use crate::stage::{HEAL, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::until;

/// Of the most that is answered in a second, what has to be left of it under overload. Those who ask take from the same cores.
const GOODPUT_MIN: f64 = 0.4;
/// How often both are looked at again where it is less: a machine that is busy otherwise takes of the one and not of the other now and then, and what overload takes, it takes
/// each time.
const AGAIN: u32 = 3;
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

/// The best of some looks, which take this time together: what a machine that is busy otherwise takes, it takes from some.
fn best_goodput(ledger: &Ledger, time: Duration) -> f64 {
    (0..LOOKS).map(|_| goodput(ledger, time / LOOKS)).fold(0.0, f64::max)
}

/// K20. What cannot be taken is refused at once; what was taken is answered.
pub(super) fn more_than_capacity(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start_with(trial, |builder| builder.slots(32, 4))?;
    let spin_us = SPIN_US..SPIN_US + 1;
    let closed = Load { spin_us: spin_us.clone(), pause: Duration::ZERO, ..Load::default() };
    // Ten threads with more on their way than there are slots: whoever is refused asks again at once.
    let open = Load {
        threads: 10,
        window: 16,
        pause: Duration::from_micros(20),
        open_loop: true,
        spin_us,
        ..Load::default()
    };
    let mut look = |load: &Load, part: f64| {
        trial.event();
        let running = stage.load(load, trial);
        let goodput = best_goodput(&stage.ledger, trial.time.mul_f64(part));
        trial.verdict.problems.extend(running.stop());
        goodput
    };
    let (mut peak, mut during) = (0.0, 0.0);
    for _ in 0..=AGAIN {
        (peak, during) = (look(&closed, 0.25), look(&open, 0.4));
        if peak > 0.0 && during >= GOODPUT_MIN * peak {
            break;
        }
    }
    trial.figure("goodput_peak", peak);
    trial.figure("goodput_overloaded", during);
    let refused = stage.ledger.counts().refused;
    trial.expect(refused > 0, || "nothing was refused".to_owned());
    trial.expect(peak > 0.0 && during >= GOODPUT_MIN * peak, || {
        format!("{during:.0} calls are answered in a second under overload, {peak:.0} before")
    });
    stage.finish(Vec::new(), trial);
    Ok(())
}

/// Of two functions that ask for more than there is, what the one has at least to have of what both get: nine tenths of its half.
const SHARE_MIN: f64 = 0.45;
/// Times that the share is looked at. A machine that is busy otherwise lowers it now and then, when it keeps the callers from calling; nothing raises it.
const LOOKS: u32 = 5;

/// What part of the calls that end OK are of the first ledger: the most of some looks, which take this time together. Where that is not enough they are repeated.
fn share(first: &Ledger, second: &Ledger, time: Duration) -> f64 {
    let ok = || [first, second].map(|ledger| ledger.outcomes(Status::Ok));
    let look = |_| {
        let before = ok();
        std::thread::sleep(time / LOOKS);
        let [first, second] = [0, 1].map(|i| (ok()[i] - before[i]) as f64);
        first / (first + second).max(1.0)
    };
    let mut most = 0.0f64;
    for round in 0..LOOKS * (1 + AGAIN) {
        if round >= LOOKS && most >= SHARE_MIN {
            break;
        }
        most = most.max(look(round));
    }
    most
}

/// K22. The others get on: one who asks for one call at a time, and one who asks for more than his share, though for much less than the flood.
pub(super) fn one_function_floods(trial: &mut Trial) -> Result<(), Stop> {
    let mut stage = Stage::start(trial)?;
    let honest = Load { threads: 1, window: 1, ..Load::default() };
    let mine = Arc::new(Ledger::new(1 << 18));
    stage.others.push(Arc::clone(&mine));
    let alone = honest.start(&stage.node, &mine, &mut trial.random);
    let before = goodput(&mine, trial.time.mul_f64(0.2));
    trial.verdict.problems.extend(alone.stop());
    trial.event();
    let hog = stage.load(&flood(), trial);
    std::thread::sleep(trial.time.mul_f64(0.1));
    let beside = honest.start(&stage.node, &mine, &mut trial.random);
    let answered = mine.outcomes(Status::Ok);
    let during = goodput(&mine, trial.time.mul_f64(0.2));
    let goes_on = until(HEAL, || mine.outcomes(Status::Ok) > answered);
    trial.verdict.problems.extend(beside.stop());
    let busy = Load { threads: 3, window: 10, functions: vec!["answer"], ..flood() };
    let busy = Load { open_loop: false, pause: Duration::ZERO, ..busy };
    let busy = busy.start(&stage.node, &mine, &mut trial.random);
    let share = share(&mine, &stage.ledger, trial.time.mul_f64(0.3));
    trial.verdict.problems.extend(busy.stop());
    trial.verdict.problems.extend(hog.stop());
    trial.figure("honest_per_s_alone", before);
    trial.figure("honest_per_s_beside_flood", during);
    trial.figure("honest_refused", mine.counts().refused as f64);
    trial.figure("honest_share", share);
    trial.expect(goes_on, || "a function starves while another is flooded".to_owned());
    trial.expect(share >= SHARE_MIN, || format!("a function has {share:.2} while another is flooded"));
    stage.finish(Vec::new(), trial);
    Ok(())
}
