//! Clocks jump.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use microfaas_node::{Request, Status};
use nix::sys::signal::Signal;

use crate::experiments::deaths;
use crate::load::Load;
use crate::stage::Stage;
use crate::trial::{Stop, Trial};
use crate::victim::Worker;

/// What reads the wall clock, as it is spelled in sources.
const WALL_CLOCK: [&str; 3] = ["SystemTime", "CLOCK_REALTIME", "gettimeofday"];
/// Files that may: they say when something was deployed, or stamp a log line.
const MAY: [&str; 2] = ["core/node/src/registry.rs", "core/node/src/version.rs"];
/// What decides anything about calls.
const FOLDERS: [&str; 8] = ["abi", "control", "lane", "node", "preempt", "sandbox", "sys", "worker"];

/// K26. The wall clock of a machine that others use is not set for a test, and no namespace has one of its own. What can be known is that nobody asks for it: so the
/// sources are looked through.
pub(super) fn wall_clock(trial: &mut Trial) -> Result<(), Stop> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in FOLDERS {
        sources(&root.join("core").join(folder).join("src"), &mut files)?;
    }
    trial.figure("files", files.len() as f64);
    trial.expect(files.len() > 50, || format!("only {} sources were found", files.len()));
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
    let stage = Stage::start_with(trial, |builder| builder.stall(Duration::from_millis(500)))?;
    let load = Load {
        deadline: Duration::from_millis(200)..Duration::from_millis(300),
        may_end: &[Status::Timeout, Status::Expired, Status::WorkerLost],
        ..Load::default()
    };
    let running = stage.load(&load, trial);
    let workers = [Worker::of(&stage.node, 0)?, Worker::of(&stage.node, 1)?];
    for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
        for worker in workers.iter().flatten() {
            worker.process.send(signal)?;
        }
        std::thread::sleep(Duration::from_millis(450));
    }
    drop(workers);
    stage.finish(vec![running], trial);
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
    let status = call("spin", Duration::from_millis(20));
    trial.expect(status == Status::Timeout, || format!("an endless call ended {status}"));
    stage.finish(Vec::new(), trial);
    Ok(())
}
