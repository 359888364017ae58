//! Hosts and nodes end.

use std::path::PathBuf;
use std::time::Duration;

use microfaas_node::{Request, RestartCause, Status};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::experiments::served::Served;
use crate::footprint::descendants;
use crate::load::{Load, Running, p50_p99_ms};
use crate::modules::put;
use crate::question::Question;
use crate::role::{Manner, Role, told};
use crate::stage::{HEAL, MODULE, Stage, enter};
use crate::trial::{Stop, Trial};
use crate::victim::{Victim, Worker, until};

pub(super) const SOCKET: &str = "socket";
/// A call's that takes long: more than a node that is told to stop once gave to any.
const LONG_US: u64 = 3_000_000;

pub(super) fn stage_with_socket(trial: &mut Trial) -> Result<(Stage, PathBuf, TempDir), Stop> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join(SOCKET);
    let mut stage = Stage::start_with(trial, |builder| builder.socket(&socket))?;
    stage.guests = true;
    Ok((stage, socket, folder))
}

/// Times of calls while nothing is done to anybody, for a while (invariant I6; informational, since a machine has other things to do).
fn alone(running: &Running, trial: &Trial) -> (f64, f64) {
    let _ = running.watch().take_times();
    std::thread::sleep(trial.time.mul_f64(0.15));
    p50_p99_ms(&running.watch().take_times())
}

/// Notes the times since then, beside those.
fn beside(running: &Running, before: (f64, f64), trial: &mut Trial) {
    let during = p50_p99_ms(&running.watch().take_times());
    for (name, value) in [
        ("survivor_p50_before_ms", before.0),
        ("survivor_p99_before_ms", before.1),
        ("survivor_p50_ms", during.0),
        ("survivor_p99_ms", during.1),
    ] {
        trial.figure(name, value);
    }
}

/// K05. Their lanes are taken back; the host in this process and another attached one notice nothing.
pub(super) fn attached_are_killed(trial: &mut Trial) -> Result<(), Stop> {
    let (stage, socket, _folder) = stage_with_socket(trial)?;
    let running = stage.load(&Load::default(), trial);
    let mut survivor = Role::host(&socket, Manner::Load, trial.random.u64(..))?;
    let before = alone(&running, trial);
    let mut kills = 0;
    while !trial.is_over(0.7) {
        let host = Role::host(&socket, Manner::Load, trial.random.u64(..))?;
        std::thread::sleep(trial.some_time(Duration::from_millis(60)));
        host.process.kill()?;
        let status = host.wait()?;
        trial.expect(status.code().is_none(), || format!("a host ended with {status} before it was killed"));
        kills += 1;
        trial.event();
    }
    trial.figure("kills", f64::from(kills));
    beside(&running, before, trial);
    let said = survivor.ask()?;
    match told(&said) {
        Ok(told) => {
            let counted = told.counts;
            trial.expect(counted.ok > 0 && counted.ok == counted.completed, || {
                format!("the other host: {said}")
            });
            trial.figure("other_host_p50_ms", told.p50_p99_ms.0);
            trial.figure("other_host_p99_ms", told.p50_p99_ms.1);
            trial.verdict.counts.add(counted);
        }
        Err(said) => trial.expect(false, || format!("the other host: {said}")),
    }
    survivor.wait()?;
    stage.finish(vec![running], trial);
    Ok(())
}

/// H02. What one host has taken is missing to nobody else, whether it is stopped, or told news that it does not read.
pub(super) fn slots_leak(trial: &mut Trial) -> Result<(), Stop> {
    let (stage, socket, _folder) = stage_with_socket(trial)?;
    let running = stage.load(&Load::default(), trial);
    let before = alone(&running, trial);
    let mut version = 0;
    while !trial.is_over(0.7) {
        let leaker = Role::host(&socket, Manner::Leak, 0)?;
        leaker.process.send(Signal::SIGSTOP)?;
        for _ in 0..3 {
            version += 1;
            let path = stage.put_version(version, trial)?;
            stage.node.deploy(path)?;
        }
        let mut other = Role::host(&socket, Manner::Load, trial.random.u64(..))?;
        std::thread::sleep(trial.some_time(Duration::from_millis(100)));
        let said = other.ask()?;
        let well =
            told(&said).is_ok_and(|told| told.counts.ok > 0 && told.counts.ok == told.counts.completed);
        trial.expect(well, || format!("beside a host that leaks: {said}"));
        trial.event();
        leaker.process.kill()?;
        leaker.wait()?;
    }
    beside(&running, before, trial);
    stage.finish(vec![running], trial);
    Ok(())
}

/// H01. Workers end with their host, and the next one starts clean.
pub(super) fn embedded_is_killed(trial: &mut Trial) -> Result<(), Stop> {
    let mut kills = 0;
    while !trial.is_over(0.8) {
        let host = Role::embedded(&trial.folder, trial.random.u64(..))?;
        let mut workers = Vec::new();
        for pid in host.ready.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            workers.extend(Victim::open(pid)?);
        }
        trial.expect(workers.len() == 2, || format!("workers {}", host.ready));
        std::thread::sleep(trial.some_time(Duration::from_millis(100)));
        host.process.kill()?;
        host.wait()?;
        for worker in workers {
            let ended = worker.ends_within(HEAL)?;
            trial.expect(ended, || format!("worker {} outlives its host", worker.pid));
        }
        kills += 1;
        trial.event();
    }
    trial.figure("kills", f64::from(kills));
    Ok(())
}

/// H03. Before it is ready: whatever there is of its node by then ends with it. What is started at the same moment is found when the experiment is over.
pub(super) fn starting_is_killed(trial: &mut Trial) -> Result<(), Stop> {
    let mut kills = 0;
    while !trial.is_over(0.8) {
        let host = Role::embedded_starting(&trial.folder, trial.random.u64(..))?;
        std::thread::sleep(trial.some_time(Duration::from_millis(150)));
        let mut processes = Vec::new();
        for (pid, _) in descendants(host.process.pid) {
            processes.extend(Victim::open(pid)?);
        }
        host.process.kill()?;
        host.wait()?;
        for process in processes {
            let ended = process.ends_within(HEAL)?;
            trial.expect(ended, || format!("process {} outlives its host", process.pid));
        }
        kills += 1;
        trial.event();
    }
    trial.figure("kills", f64::from(kills));
    Ok(())
}

/// H04. Calls of hosts that are killed are on their way from dead workers to others.
pub(super) fn hosts_and_workers_are_killed(trial: &mut Trial) -> Result<(), Stop> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join(SOCKET);
    let stage = Stage::start_with(trial, |builder| builder.socket(&socket).restarts(u32::MAX))?;
    let mut stage = stage.loses(&[RestartCause::Died]);
    stage.guests = true;
    let running = stage.load(&Load { may_end: &[Status::WorkerLost], ..Load::default() }, trial);
    let mut kills = 0;
    while !trial.is_over(0.7) {
        let host = Role::host(&socket, Manner::Load, trial.random.u64(..))?;
        std::thread::sleep(trial.some_time(Duration::from_millis(20)));
        let worker = Worker::of(&stage.node, kills % 2)?;
        trial.event();
        worker.iter().try_for_each(|worker| worker.process.kill())?;
        std::thread::sleep(trial.some_time(Duration::from_millis(3)));
        host.process.kill()?;
        host.wait()?;
        if let Some(worker) = worker {
            let replaced = until(HEAL, || worker.is_replaced(&stage.node));
            trial.expect(replaced, || format!("worker {} is not replaced", worker.index));
        }
        kills += 1;
    }
    trial.figure("kills", kills as f64);
    stage.finish(vec![running], trial);
    Ok(())
}

/// K06. The host gets an outcome for each call, is refused while there is no node, and comes back by itself. The node's workers end with it.
pub(super) fn node_is_killed(trial: &mut Trial) -> Result<(), Stop> {
    let mut served = Served::start(trial)?;
    let load = Load { may_end: &[Status::WorkerLost], ..Load::default() };
    let running = load.start(&served.host, &served.ledger, &mut trial.random);
    let mut kills = 0;
    while !trial.is_over(0.8) {
        std::thread::sleep(trial.some_time(Duration::from_millis(100)));
        served.kill_and_start(trial)?;
        kills += 1;
    }
    trial.figure("kills", f64::from(kills));
    trial.verdict.problems.extend(running.stop());
    served.finish(trial);
    Ok(())
}

/// K24. Embedded, then by the command's signal: what was accepted ends, the rest is refused, nobody is left.
pub(super) fn graceful_stop(trial: &mut Trial) -> Result<(), Stop> {
    while !trial.is_over(0.4) {
        let stage = Stage::start(trial)?;
        let running = stage.load(&Load { hang_up: 20, ..Load::default() }, trial);
        std::thread::sleep(trial.some_time(Duration::from_millis(100)));
        trial.event();
        let before = descendants(std::process::id()).len();
        trial.expect(before == 3, || format!("{before} processes of two workers and a spare"));
        // Longer than any call's deadline: so all that was accepted ends OK.
        stage.node.shutdown(HEAL);
        let after = descendants(std::process::id());
        trial.expect(after.is_empty(), || format!("processes {after:?} are left of a node that was stopped"));
        trial.verdict.problems.extend(running.stop());
        enter(&stage.ledger, trial);
    }
    let mut is_first = true;
    while is_first || !trial.is_over(0.8) {
        let mut served = Served::start(trial)?;
        let load = Load { may_end: &[Status::WorkerLost, Status::Cancelled], ..Load::default() };
        let running = load.start(&served.host, &served.ledger, &mut trial.random);
        // A call that is in the middle of its seconds ends OK.
        let question = Question { id: u64::MAX, nonce: trial.random.u64(..), spin_us: LONG_US, payload: 10 };
        let mut body = Vec::new();
        question.write(&mut body);
        let request = Request::new(&body).deadline(HEAL);
        let long = is_first.then(|| served.host.submit("answer_again", request)).transpose();
        let long =
            long.map_err(|error| Stop::Failed(format!("a call that takes long is refused: {error}")))?;
        is_first = false;
        std::thread::sleep(trial.some_time(Duration::from_millis(100)));
        let Some(server) = served.server.take() else { break };
        let workers = descendants(server.process.pid);
        let is_right = (2..=3).contains(&workers.len());
        trial.expect(is_right, || format!("{} processes of two workers and a spare to come", workers.len()));
        server.process.send(Signal::SIGTERM)?;
        if let Some(long) = long {
            let answer = long.wait();
            trial.expect(answer.status == Status::Ok && question.check(&answer.body).is_ok(), || {
                format!(
                    "a call that took long when the node was told to stop: {} {}",
                    answer.status, answer.detail
                )
            });
        }
        let status = server.wait()?;
        trial.expect(status.success(), || format!("a node that was told to stop ended with {status}"));
        let left = descendants(std::process::id());
        trial.expect(left.is_empty(), || {
            format!("processes {left:?} are left of a node that was told to stop")
        });
        trial.verdict.problems.extend(running.stop());
        let ended = served.ledger.counts();
        trial.figure("not_ok_at_stop", (ended.completed - ended.ok) as f64);
        enter(&served.ledger, trial);
    }
    Ok(())
}

/// N02. The settings are read again, and a module is tried out, when the node is told to stop: it does, and nobody is left.
pub(super) fn stopped_while_deploying(trial: &mut Trial) -> Result<(), Stop> {
    let mut version = 0;
    while version == 0 || !trial.is_over(0.7) {
        version += 1;
        let mut served = Served::start(trial)?;
        let load = Load { may_end: &[Status::WorkerLost, Status::Cancelled], ..Load::default() };
        let running = load.start(&served.host, &served.ledger, &mut trial.random);
        put(served.folder.path(), MODULE, &trial.modules.version(version))?;
        if let Some(server) = &served.server {
            server.process.send(Signal::SIGHUP)?;
        }
        std::thread::sleep(trial.some_time(Duration::from_millis(60)));
        trial.event();
        served.end_server(trial, Signal::SIGTERM)?;
        let left = descendants(std::process::id());
        trial.expect(left.is_empty(), || {
            format!("processes {left:?} are left of a node that was told to stop")
        });
        trial.verdict.problems.extend(running.stop());
        enter(&served.ledger, trial);
    }
    Ok(())
}
