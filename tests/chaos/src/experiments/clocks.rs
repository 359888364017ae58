//! Clocks jump.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use microfaas_node::{Request, RestartCause, Status};
use nix::sys::signal::Signal;

use crate::experiments::deaths;
use crate::footprint::descendants;
use crate::load::Load;
use crate::modules::SHIM;
use crate::role::{Role, told};
use crate::stage::{HEAL, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::{Victim, Worker, until};

/// What reads the wall clock, as it is spelled in sources.
const WALL_CLOCK: [&str; 3] = ["SystemTime", "CLOCK_REALTIME", "gettimeofday"];
/// Files that may: they say when something was deployed, or print that.
const MAY: [&str; 3] = ["core/node/src/registry.rs", "core/node/src/version.rs", "core/cli/src/deploy.rs"];
/// How far the shim sets it back, and forth.
const BACK: Duration = Duration::from_secs(3600);
const FORTH: Duration = Duration::from_secs(86_400);
/// Longer than the shim needs for all that it does.
const ALL_TURNS: Duration = Duration::from_millis(200);
/// Between two looks at a clock that jumps.
const LOOK: Duration = Duration::from_millis(5);
const KILLS: usize = 4;

/// K26. No namespace has a wall clock of its own, and a machine's is not set for a test: so this process and its workers have a library before the system's that moves it.
/// That it does is looked at in both. Then calls are made as ever, with deadlines that matter, while workers are killed and versions deployed.
pub(super) fn wall_clock(trial: &mut Trial) -> Result<(), Stop> {
    search(trial)?;
    let shim = trial.folder.join(SHIM);
    let jumps = jumps(SystemTime::now);
    trial.expect(jumps, || "this process sees no jumps of the wall clock".to_owned());
    let stage = Stage::start_with(trial, |builder| builder.worker_env("LD_PRELOAD", &shim))?;
    let stage = stage.loses(&[RestartCause::Died]);
    let in_worker = || {
        let answer = stage.call("wall", Request::new(b"").deadline(HEAL));
        let since = answer.body.try_into().map_or(0, u64::from_le_bytes);
        SystemTime::UNIX_EPOCH + Duration::from_nanos(since)
    };
    let jumps = self::jumps(in_worker);
    trial.expect(jumps, || "functions see no jumps of the wall clock".to_owned());
    let load = Load { may_end: &[Status::WorkerLost], ..Load::default() };
    let running = stage.load(&load, trial);
    for kill in 0..KILLS {
        let request = Request::new(b"").deadline(Duration::from_millis(50));
        let status = stage.call_started("spin", request).status;
        trial.expect(status == Status::Timeout, || format!("an endless call ended {status}"));
        trial.event();
        let path = stage.put_version(u32::try_from(kill).unwrap_or(0) + 1, trial)?;
        stage.node.deploy(path)?;
        std::thread::sleep(trial.time.mul_f64(0.1));
        let Some(worker) = Worker::of(&stage.node, kill % 2)? else { continue };
        trial.event();
        let replaced = worker.kill_and_wait(&stage.node, HEAL)?;
        trial.expect(replaced.is_some(), || format!("worker {} is not replaced", worker.index));
    }
    // Whoever sleeps meanwhile is to wake.
    std::thread::sleep(ALL_TURNS);
    stage.finish(vec![running], trial);
    Ok(())
}

/// Whether a clock is seen to be so far back and forth of what it was, by somebody who has seen it right.
fn jumps(now: impl Fn() -> SystemTime) -> bool {
    let (mut first, mut last) = (now(), now());
    until(HEAL, || {
        std::thread::sleep(LOOK);
        let seen = now();
        (first, last) = (first.min(seen), last.max(seen));
        last.duration_since(first).is_ok_and(|most| most >= BACK + FORTH)
    })
}

/// Nobody asks for it in the sources, but to say when something was.
fn search(trial: &mut Trial) -> Result<(), Stop> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["core", "gateways"] {
        for part in fs::read_dir(root.join(folder))? {
            let part = part?.path().join("src");
            if part.is_dir() {
                sources(&part, &mut files)?;
            }
        }
    }
    trial.figure("files", files.len() as f64);
    trial.expect(files.len() > 200, || format!("only {} sources were found", files.len()));
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        let text = fs::read_to_string(&file)?;
        let found = WALL_CLOCK.iter().find(|word| text.contains(**word));
        trial.expect(found.is_none() || MAY.contains(&name.as_str()), || {
            format!("{name} reads the wall clock: {}", found.unwrap_or(&""))
        });
    }
    Ok(())
}

fn sources(folder: &Path, to: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, to)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            to.push(path);
        }
    }
    Ok(())
}

/// K27. This process is where the clocks are a century ahead. Deadlines that cannot be told from never, and such that are too near; a kill or two; then both workers
/// stand still for longer than their calls' deadlines, as in a machine that is paused.
pub(super) fn monotonic_clock(trial: &mut Trial) -> Result<(), Stop> {
    let now = Duration::from_nanos(microfaas_sys::clock::monotonic_ns());
    let years = now.as_secs() / (365 * 24 * 3600);
    trial.expect(years >= 99, || format!("the clock is {years} years ahead"));
    deadlines(trial)?;
    deaths::one_at_a_time(trial)?;
    // A stall is longer by far: that they wake late is nobody's fault.
    let stage = Stage::start_with(trial, |builder| builder.stall(Duration::from_secs(5)))?;
    let load = Load {
        deadline: Duration::from_millis(200)..Duration::from_millis(300),
        may_end: &[Status::Timeout, Status::Expired, Status::WorkerLost],
        ..Load::default()
    };
    let running = stage.load(&load, trial);
    let workers = [Worker::of(&stage.node, 0)?, Worker::of(&stage.node, 1)?];
    trial.event();
    for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
        for worker in workers.iter().flatten() {
            worker.process.send(signal)?;
        }
        std::thread::sleep(Duration::from_millis(450));
    }
    drop(workers);
    stage.finish(vec![running], trial);
    freeze(trial)
}

/// Longer than a call's deadline, and the time after which a worker counts as hung, together.
const FROZEN: Duration = Duration::from_millis(2000);

/// A node and its workers stand still, as in a machine that is paused, until every call is long overdue. When they go on, no worker is to blame.
fn freeze(trial: &mut Trial) -> Result<(), Stop> {
    let mut host = Role::hasty(&trial.folder, trial.random.u64(..))?;
    for _ in 0..2 {
        trial.event();
        std::thread::sleep(Duration::from_millis(100));
        let mut all = vec![host.process.clone()];
        for (pid, _) in descendants(host.process.pid) {
            all.extend(Victim::open(pid)?);
        }
        for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
            for process in &all {
                process.send(signal)?;
            }
            if signal == Signal::SIGSTOP {
                std::thread::sleep(FROZEN);
            }
            // Who goes on first must not matter.
            trial.random.shuffle(&mut all);
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    match told(&host.ask()?) {
        Ok(told) => {
            trial.expect(told.restarts == 0, || {
                format!("{} workers were replaced for a pause of all", told.restarts)
            });
            trial.verdict.counts.add(told.counts);
        }
        Err(said) => trial.expect(false, || format!("a host that was stopped: {said}")),
    }
    host.wait()?;
    Ok(())
}

fn deadlines(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?;
    let call = |function: &str, deadline: Duration| {
        stage.call(function, Request::new(b"").deadline(deadline)).status
    };
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    for deadline in
        [Duration::MAX, Duration::from_nanos(u64::MAX), 5 * century, century, Duration::from_secs(60)]
    {
        let status = call("answer", deadline);
        trial.expect(status == Status::Error, || {
            format!("a call with a deadline of {deadline:?} ended {status}")
        });
    }
    let status = stage.call_started("spin", Request::new(b"").deadline(Duration::from_millis(20))).status;
    trial.expect(status == Status::Timeout, || format!("an endless call ended {status}"));
    stage.finish(Vec::new(), trial);
    Ok(())
}
