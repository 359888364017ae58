//! The system gives no more: memory, descriptors, processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use microfaas_node::{Node, Request, RestartCause, Status, WorkerState};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::footprint::Holdings;
use crate::load::Load;
use crate::stage::{HEAL, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::{Worker, until};

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

/// A worker is killed while its replacement cannot be made: the other one serves on, and when the limit is gone everything heals by itself.
fn starve(trial: &mut Trial, limit: impl Fn() -> Result<Limit, Stop>) -> Result<(), Stop> {
    let stage = Stage::start(trial)?.loses(&[RestartCause::Died, RestartCause::Launch]);
    let load = Load { may_end: &[Status::WorkerLost], ..Load::default() };
    let running = stage.load(&load, trial);
    let mut rounds = 0;
    while !trial.is_over(0.5) && rounds < 5 {
        let Some(worker) = Worker::of(&stage.node, 0)? else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let ok = stage.ledger.outcomes(Status::Ok);
        {
            let _limit = limit()?;
            worker.process.kill()?;
            // Long enough for several attempts, which fail.
            std::thread::sleep(Duration::from_millis(150));
            let others = stage.node.workers()[1].state == WorkerState::Serving;
            trial.expect(others, || "the other worker does not serve".to_owned());
            let served = until(HEAL, || stage.ledger.outcomes(Status::Ok) > ok);
            trial.expect(served, || "nothing is answered while a worker cannot be replaced".to_owned());
        }
        let healed = until(HEAL, || worker.is_replaced(&stage.node));
        trial.expect(healed, || "the worker is not replaced when it can be".to_owned());
        rounds += 1;
        trial.event();
    }
    trial.figure("rounds", f64::from(rounds));
    stage.finish(vec![running], trial);
    Ok(())
}

/// K10.
pub(super) fn descriptors(trial: &mut Trial) -> Result<(), Stop> {
    starve(trial, || {
        let open = Holdings::of(std::process::id()).descriptors;
        Limit::set(Resource::RLIMIT_NOFILE, open + 3)
    })
}

/// L01. The limit counts all processes of the user, so it must be one that has no other; root is not limited at all.
pub(super) fn processes(trial: &mut Trial) -> Result<(), Stop> {
    if nix::unistd::geteuid().is_root() {
        return Err(Stop::Skip("RLIMIT_NPROC does not hold for root".to_owned()));
    }
    starve(trial, || Limit::set(Resource::RLIMIT_NPROC, 1))
}
