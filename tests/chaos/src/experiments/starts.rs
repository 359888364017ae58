//! What ends is about to start, or waits to.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use microfaas_node::{Request, RestartCause, Status};
use nix::sys::signal::Signal;

use crate::experiments::hosts::{SOCKET, stage_with_socket};
use crate::footprint::descendants;
use crate::load::Load;
use crate::modules::put;
use crate::role::{Role, connect};
use crate::stage::{HEAL, MODULE, Stage};
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

/// Hosts that attach at the same time.
const HOSTS: usize = 3;

/// H05. Before they are attached, or at that moment: what was made ready for them is taken back, and nobody else notices.
pub(super) fn attaching_hosts_are_killed(trial: &mut Trial) -> Result<(), Stop> {
    let (stage, socket, _folder) = stage_with_socket(trial)?;
    let running = stage.load(&Load::default(), trial);
    let mut kills = 0;
    while !trial.is_over(0.6) {
        let hosts = (0..HOSTS).map(|_| Role::host_starting(&socket, trial.random.u64(..)));
        for host in hosts.collect::<Result<Vec<_>, _>>()? {
            trial.event();
            std::thread::sleep(trial.some_time(Duration::from_millis(15)));
            host.process.kill()?;
            host.wait()?;
            kills += 1;
        }
    }
    trial.figure("kills", f64::from(kills));
    stage.finish(vec![running], trial);
    Ok(())
}

/// N05. A node is told to stop at any moment of its start, once or twice: it ends as it says that it does, nothing of it is left, and the next one takes its place.
pub(super) fn told_to_stop_while_it_starts(trial: &mut Trial) -> Result<(), Stop> {
    let folder = tempfile::tempdir()?;
    put(folder.path(), MODULE, &trial.modules.version(0))?;
    let socket = folder.path().join(SOCKET);
    let mut starts = 0;
    while starts < 4 || !trial.is_over(0.7) {
        trial.event();
        let server = Role::server_starting(folder.path(), &socket)?;
        std::thread::sleep(trial.some_time(Duration::from_millis(100)));
        let mut processes = Vec::new();
        for (pid, _) in descendants(server.process.pid) {
            processes.extend(Victim::open(pid)?);
        }
        for _ in 0..=starts % 2 {
            server.process.send(Signal::SIGTERM)?;
            std::thread::sleep(trial.some_time(Duration::from_millis(10)));
        }
        let status = server.wait()?;
        // Before it has heard of signals, one ends it as it ends anybody.
        let is_right =
            matches!(status.code(), Some(0 | 143)) || status.signal() == Some(Signal::SIGTERM as i32);
        trial.expect(is_right, || format!("a node that was told to stop while it started: {status}"));
        for process in processes {
            let ended = process.ends_within(HEAL)?;
            trial.expect(ended, || format!("process {} outlives its node", process.pid));
        }
        starts += 1;
    }
    trial.figure("starts", f64::from(starts));
    let server = Role::server(folder.path(), &socket)?;
    let answer = connect(&socket)?.call("answer", Request::new(b""));
    trial.expect(answer.status == Status::Error, || format!("the next node answers {answer:?}"));
    server.process.send(Signal::SIGTERM)?;
    let status = server.wait()?;
    trial.expect(status.success(), || format!("the next node ended with {status}"));
    Ok(())
}
