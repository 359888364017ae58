//! The system gives no more: memory, descriptors, processes.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use microfaas_node::{Node, Request, RestartCause, Status, WorkerState};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::footprint::Holdings;
use crate::load::Load;
use crate::role::{Manner, Role, told};
use crate::stage::{HEAL, Stage, has_spares, serves};
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

/// A memory group that is gone when this is dropped. Its processes end up in their parents' group.
struct Group {
    path: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

impl Group {
    /// Version 1 or 2, whichever this machine lets us make.
    fn create() -> Result<Self, Stop> {
        let name = format!("microfaas-chaos-{}", std::process::id());
        let mut refusal = String::new();
        for (root, limit, usage) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
            ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ] {
            let group = Self { path: Path::new(root).join(&name), limit, usage };
            match std::fs::create_dir(&group.path) {
                Ok(()) if group.path.join(limit).exists() => return Ok(group),
                Ok(()) => refusal = format!("{root} has no {limit}"),
                Err(error) => refusal = format!("{root}: {error}"),
            }
        }
        Err(Stop::Skip(format!("no memory group can be made: {refusal}")))
    }

    fn write(&self, file: &str, value: u64) -> Result<(), Stop> {
        std::fs::write(self.path.join(file), value.to_string()).map_err(Stop::System)
    }

    /// Lets whoever is in it have so much more than it has.
    fn leave(&self, bytes: u64) -> Result<(), Stop> {
        let usage = std::fs::read_to_string(self.path.join(self.usage))?;
        let usage: u64 =
            usage.trim().parse().map_err(|error| Stop::Failed(format!("{}: {error}", self.usage)))?;
        self.write(self.limit, usage + bytes)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is busy until its last process has been reaped.
        until(
            HEAL,
            || !matches!(std::fs::remove_dir(&self.path), Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32)),
        );
    }
}

/// L02, the kernel's side of K08. A worker that has no more memory is killed by the kernel, and its node is not: whoever made it use that much is told that the worker is lost, another
/// worker takes its place, and others notice nothing.
pub(super) fn out_of_memory(trial: &mut Trial) -> Result<(), Stop> {
    let group = Group::create()?;
    let stage = Stage::start(trial)?.loses(&[RestartCause::Died]);
    let load = Load { may_end: &[Status::WorkerLost], ..Load::default() };
    let running = stage.load(&load, trial);
    let mut killed = 0;
    while !trial.is_over(0.5) && killed < 5 {
        let Some(worker) = Worker::of(&stage.node, 0)? else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let score = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        let (its, own) = (score(worker.process.pid)?, score(std::process::id())?);
        trial.expect(its.trim().parse::<i32>().ok() > own.trim().parse().ok(), || {
            format!("the kernel would end the node as soon as its worker: {own} and {its}")
        });
        group.write("cgroup.procs", worker.process.pid.into())?;
        group.leave(4 << 20)?;
        let gone = until(HEAL, || {
            // Of two workers one takes it.
            let answer = stage.call("hoard", Request::new(b"").deadline(HEAL));
            trial.expect(matches!(answer.status, Status::Oom | Status::WorkerLost), || {
                format!("hoard ended {}: {}", answer.status, answer.detail)
            });
            worker.is_replaced(&stage.node)
        });
        trial.expect(gone, || "a worker without memory is not replaced".to_owned());
        killed += 1;
        trial.event();
    }
    trial.figure("killed", f64::from(killed));
    stage.finish(vec![running], trial);
    drop(group);
    Ok(())
}

/// A limit of this process that is as it was when this is dropped.
struct Limit {
    resource: Resource,
    soft: u64,
    hard: u64,
    /// What takes up the rest of what may be had.
    fill: Vec<File>,
}

impl Limit {
    fn set(resource: Resource, to: u64) -> Result<Self, Stop> {
        let (soft, hard) = getrlimit(resource)?;
        setrlimit(resource, to.min(hard), hard)?;
        Ok(Self { resource, soft, hard, fill: Vec::new() })
    }

    /// Takes every descriptor that there is, also those that others have just given back.
    fn take_descriptors(&mut self) {
        if self.resource == Resource::RLIMIT_NOFILE {
            self.fill.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.fill.clear();
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
    meanwhile: impl Fn(&mut Trial) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let (mut rounds, mut not_replaced) = (0, 0);
    while !trial.is_over(0.5) && rounds < 4 {
        let healed = until(HEAL, || serves(&stage.node) && has_spares(&stage.node));
        trial.expect(healed, || format!("no spare: {:?}", stage.node.spares()));
        let Some(worker) = Worker::of(&stage.node, 0)? else { continue };
        let mut spares = Vec::new();
        for pid in stage.node.spares().ready {
            spares.extend(Victim::open(pid)?);
        }
        let ok = stage.ledger.outcomes(Status::Ok);
        {
            let mut limit = limit()?;
            limit.take_descriptors();
            meanwhile(trial)?;
            worker.process.kill()?;
            // Which needs nothing that there is not.
            let replaced = until(HEAL, || worker.is_replaced(&stage.node));
            trial.expect(replaced, || "no spare takes the worker's place".to_owned());
            let second = stage.node.workers()[0].generation;
            for spare in &spares {
                spare.kill()?;
            }
            let start = Instant::now();
            while start.elapsed() < ATTEMPTS {
                limit.take_descriptors();
                std::thread::sleep(Duration::from_millis(1));
            }
            let info = stage.node.workers()[0];
            not_replaced += u32::from(info.generation == second || info.state != WorkerState::Serving);
            let others = stage.node.workers()[1].state == WorkerState::Serving;
            trial.expect(others, || "the other worker does not serve".to_owned());
            let served = until(HEAL, || stage.ledger.outcomes(Status::Ok) > ok);
            trial.expect(served, || "nothing is answered while a worker cannot be replaced".to_owned());
        }
        rounds += 1;
        trial.event();
    }
    trial.figure("rounds", f64::from(rounds));
    trial.figure("not_replaced", f64::from(not_replaced));
    // Else nothing was short.
    trial.expect(not_replaced > 0, || "every worker was replaced in spite of the limit".to_owned());
    Ok(())
}

const LIMITED: &[RestartCause] = &[RestartCause::Died, RestartCause::Launch];

fn load() -> Load {
    Load { may_end: &[Status::WorkerLost], ..Load::default() }
}

/// K10. A deployment fails with the system's word for it, who wants in waits, and an attached host is served on.
pub(super) fn descriptors(trial: &mut Trial) -> Result<(), Stop> {
    let folder = tempfile::tempdir()?;
    let socket_path = folder.path().join("socket");
    let mut stage = Stage::start_with(trial, |builder| builder.socket(&socket_path))?.loses(LIMITED);
    stage.guests = true;
    let running = stage.load(&load(), trial);
    let mut attached = Role::host(&socket_path, Manner::Load, trial.random.u64(..))?;
    let limit = || {
        let open = Holdings::of(std::process::id()).descriptors;
        Limit::set(Resource::RLIMIT_NOFILE, open + 3)
    };
    let path = stage.put_version(1, trial)?;
    // Made while there are descriptors: then only the node's side of the connection is missing.
    let knock = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let address = UnixAddr::new(&socket_path)?;
    let knocked = Cell::new(false);
    starve(&stage, trial, limit, |trial| {
        let said = stage.node.deploy(&path).map(|_| ()).map_err(|error| error.to_string());
        let clear = said.as_ref().is_err_and(|error| error.contains("open files"));
        trial.expect(clear, || format!("a deployment without descriptors: {said:?}"));
        if !knocked.replace(true) {
            connect(knock.as_raw_fd(), &address)?;
        }
        Ok(())
    })?;
    drop(knock);
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
