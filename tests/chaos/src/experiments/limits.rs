//! The system gives no more: memory, descriptors, processes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use microfaas_node::{Node, Request, RestartCause, Status, WorkerState};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::footprint::Holdings;
use crate::load::Load;
use crate::role::{Manner, Role, told};
use crate::stage::{HEAL, Stage, serves};
use crate::trial::{Stop, Trial};
use crate::victim::{Victim, Worker, until};

/// K08. The arena's limit answers OOM, the worker goes on, others notice nothing.
pub(super) fn memory(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?;
    let pids = |node: &Node| node.workers().iter().map(|worker| worker.pid).collect::<Vec<_>>();
    let before = pids(&stage.node);
    let running = stage.load(&Load::default(), trial);
    let mut hogs = 0u64;
    while !trial.is_over(0.5) {
        for (function, status) in [
            ("hoard", Status::Oom),
            ("overflow", Status::Fault),
            ("panic", Status::Panic),
            ("hoard", Status::Oom),
        ] {
            let answer = stage.call(function, Request::new(b"").deadline(HEAL));
            hogs += 1;
            trial.event();
            trial.expect(answer.status == status, || {
                format!("{function} ended {}: {}", answer.status, answer.detail)
            });
        }
    }
    let after = pids(&stage.node);
    trial.expect(before == after, || format!("workers {before:?} were replaced by {after:?}"));
    trial.figure("hogs", hogs as f64);
    stage.finish(vec![running], trial);
    Ok(())
}

/// A time without descriptors, but for those that others give back.
pub(super) fn without_descriptors(time: Duration) -> Result<(), Stop> {
    let limit = Limit::set(Resource::RLIMIT_NOFILE, Holdings::of(std::process::id()).descriptors)?;
    let (start, mut taken) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        taken.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(taken);
    drop(limit);
    Ok(())
}

/// More than a node or a host waits for at once, since the kernel lets nobody wait for more than he may have.
const LOW: u64 = 64;

/// Takes all descriptors below [`LOW`]. With these gone a limit of that many leaves none, whatever is given back meanwhile: it is by number.
fn take_low_descriptors() -> std::io::Result<Vec<File>> {
    let mut taken = Vec::new();
    loop {
        let file = File::open("/dev/null")?;
        if u64::try_from(file.as_raw_fd()).unwrap_or(u64::MAX) >= LOW {
            return Ok(taken);
        }
        taken.push(file);
    }
}

/// A limit of this process that is as it was when this is dropped.
struct Limit {
    resource: Resource,
    soft: u64,
    hard: u64,
}

impl Limit {
    fn set(resource: Resource, to: u64) -> Result<Self, Stop> {
        let (soft, hard) = getrlimit(resource)?;
        setrlimit(resource, to.min(hard), hard)?;
        Ok(Self { resource, soft, hard })
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // What it was it can be again.
        let _ = setrlimit(self.resource, self.soft, self.hard);
    }
}

/// Longer than a node needs for several attempts, which fail.
const ATTEMPTS: Duration = Duration::from_millis(150);

/// A worker is killed while its replacement cannot be made, and the spare that takes its place, too: the other worker serves on, and when the limit is gone everything heals by itself.
fn starve(
    stage: &Stage,
    trial: &mut Trial,
    limit: impl Fn() -> Result<Limit, Stop>,
    meanwhile: impl FnOnce(&mut Trial) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let Some(worker) = Worker::of(&stage.node, 0)? else {
        return Err(Stop::Failed("a worker does not serve".to_owned()));
    };
    let mut spares = Vec::new();
    for pid in stage.node.spares().ready {
        spares.extend(Victim::open(pid)?);
    }
    std::thread::sleep(trial.time.mul_f64(0.2));
    let ok = stage.ledger.outcomes(Status::Ok);
    trial.event();
    let limit = limit()?;
    meanwhile(trial)?;
    worker.process.kill()?;
    // Which needs nothing that there is not.
    let replaced = until(HEAL, || worker.is_replaced(&stage.node));
    trial.expect(replaced, || {
        let (workers, spares) = (stage.node.workers(), stage.node.spares());
        format!("no spare takes the worker's place: {workers:?}, {spares:?}")
    });
    let second = stage.node.workers()[0].generation;
    for spare in &spares {
        spare.kill()?;
    }
    std::thread::sleep(ATTEMPTS);
    let info = stage.node.workers()[0];
    // Else nothing was short.
    trial.expect(info.generation == second || info.state != WorkerState::Serving, || {
        format!("the worker was replaced in spite of the limit: {info:?}")
    });
    let others = stage.node.workers()[1].state == WorkerState::Serving;
    trial.expect(others, || "the other worker does not serve".to_owned());
    let served = until(HEAL, || stage.ledger.outcomes(Status::Ok) > ok);
    trial.expect(served, || "nothing is answered while a worker cannot be replaced".to_owned());
    drop(limit);
    Ok(())
}

const LIMITED: &[RestartCause] = &[RestartCause::Died, RestartCause::Launch];

fn load() -> Load {
    Load { may_end: &[Status::WorkerLost], ..Load::default() }
}

/// K10. A deployment fails with the system's word for it, who wants in waits, and an attached host is served on.
pub(super) fn descriptors(trial: &mut Trial) -> Result<(), Stop> {
    let low = take_low_descriptors()?;
    let folder = tempfile::tempdir()?;
    let socket_path = folder.path().join("socket");
    let mut stage = Stage::start_with(trial, |builder| builder.socket(&socket_path))?.loses(LIMITED);
    stage.guests = true;
    let running = stage.load(&load(), trial);
    let mut attached = Role::host(&socket_path, Manner::Load, trial.random.u64(..))?;
    let path = stage.put_version(1, trial)?;
    // Made while there are descriptors: then only the node's side of the connection is missing.
    let knock = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let address = UnixAddr::new(&socket_path)?;
    starve(
        &stage,
        trial,
        || Limit::set(Resource::RLIMIT_NOFILE, LOW),
        |trial| {
            let said = stage.node.deploy(&path).map(|_| ()).map_err(|error| error.to_string());
            let clear = said.as_ref().is_err_and(|error| error.contains("open files"));
            trial.expect(clear, || format!("a deployment without descriptors: {said:?}"));
            Ok(connect(knock.as_raw_fd(), &address)?)
        },
    )?;
    drop(knock);
    let healed = until(HEAL, || serves(&stage.node));
    trial.expect(healed, || "the worker is not replaced when it can be".to_owned());
    stage.node.deploy(&path)?;
    let mut late = Role::host(&socket_path, Manner::Load, trial.random.u64(..))?;
    std::thread::sleep(Duration::from_millis(50));
    for (host, which) in [(&mut attached, "was attached before"), (&mut late, "came afterwards")] {
        let said = host.ask()?;
        let served = told(&said).is_ok_and(|told| told.counts.ok > 0);
        trial.expect(served, || format!("a host that {which}: {said}"));
    }
    drop((attached, late));
    stage.finish(vec![running], trial);
    drop(low);
    Ok(())
}

/// L01. The limit counts all processes of the user, so it must be one that has few others; root is not limited at all.
pub(super) fn processes(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?.loses(LIMITED);
    let running = stage.load(&load(), trial);
    starve(&stage, trial, || Limit::set(Resource::RLIMIT_NPROC, 1), |_| Ok(()))?;
    stage.finish(vec![running], trial);
    Ok(())
}
