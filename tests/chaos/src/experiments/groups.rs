//! The kernel has no more memory for a group of processes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use microfaas_node::{Request, RestartCause, Status};
use nix::errno::Errno;

use crate::load::Load;
use crate::role::Role;
use crate::stage::{HEAL, Stage, serves};
use crate::trial::{Stop, Trial};
use crate::victim::{Worker, until};

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
                Ok(()) if group.path.join(limit).exists() => {
                    group.keep_in_memory();
                    return Ok(group);
                }
                Ok(()) => refusal = format!("{root} has no {limit}"),
                Err(error) => refusal = format!("{root}: {error}"),
            }
        }
        Err(Stop::Skip(format!("no memory group can be made: {refusal}")))
    }

    /// What has no room ends, and is not put on a disk: where there is none, neither file need be there.
    fn keep_in_memory(&self) {
        for file in ["memory.swappiness", "memory.swap.max"] {
            let _ = self.write(file, 0);
        }
    }

    /// Takes this process in, and all that it starts from now on. It leaves when the result is dropped.
    fn enter(&self) -> Result<Member, Stop> {
        let member = Member { home: home(self.path.parent().unwrap_or(Path::new("/")))? };
        self.write("cgroup.procs", std::process::id().into())?;
        Ok(member)
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

/// This process, while it is in a group.
struct Member {
    home: PathBuf,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = std::fs::write(self.home.join("cgroup.procs"), std::process::id().to_string());
    }
}

/// The group that this process is in, of those below a folder.
fn home(root: &Path) -> Result<PathBuf, Stop> {
    let all = std::fs::read_to_string("/proc/self/cgroup")?;
    let controller = if root.ends_with("memory") { "memory" } else { "" };
    let mut lines = all.lines().map(|line| line.splitn(3, ':').skip(1));
    let path = lines.find_map(|mut words| {
        let controllers = words.next()?;
        words.next().filter(|_| controllers.split(',').any(|name| name == controller))
    });
    let path = path.ok_or_else(|| Stop::Failed(format!("no group of this process in {all:?}")))?;
    Ok(root.join(path.trim_start_matches('/')))
}

/// What balloons have. Each has less than a worker counts for when the kernel looks whom to end, which is by a part of what the whole group may have above what it has.
const BALLOONS: usize = 8;
const BALLOON_MIB: u64 = 24;
/// What they leave to all others together: less than one call may have.
const LEFT: u64 = 6 << 20;

/// K09. Balloons have the memory of the group in which everything is, and calls ask for what is not there. Workers go, not the node; they are replaced as far as there is room, and
/// when the balloons are gone, all heals.
pub(super) fn pressure(trial: &mut Trial) -> Result<(), Stop> {
    let group = Group::create()?;
    let member = group.enter()?;
    let stage = Stage::start_with(trial, |builder| builder.restarts(u32::MAX))?;
    let stage = stage.loses(&[RestartCause::Died, RestartCause::Launch]);
    let running = stage.load(&Load { may_end: &[Status::WorkerLost], ..Load::default() }, trial);
    let (mut lost, mut rounds) = (0, 0);
    while lost == 0 || !trial.is_over(0.6) {
        let balloons = (0..BALLOONS).map(|_| Role::balloon(BALLOON_MIB)).collect::<Result<Vec<_>, _>>()?;
        group.leave(LEFT)?;
        let pressed = until(HEAL, || {
            let answer = stage.call("hoard", Request::new(b"").deadline(HEAL));
            let may = [Status::Oom, Status::WorkerLost, Status::Overloaded];
            trial.expect(may.contains(&answer.status), || {
                format!("hoard ended {}: {}", answer.status, answer.detail)
            });
            stage.node.stats().restarts > lost
        });
        trial.expect(pressed, || "there is memory for everybody".to_owned());
        std::thread::sleep(Duration::from_millis(50));
        for balloon in balloons {
            let ended = balloon.process.ends_within(Duration::ZERO)?;
            trial.expect(!ended, || "a balloon was ended before the workers".to_owned());
        }
        group.leave(1 << 30)?;
        let healed = until(HEAL, || serves(&stage.node));
        trial.expect(healed, || format!("workers do not come back: {:?}", stage.node.workers()));
        // Each may log its end.
        let before = std::mem::replace(&mut lost, stage.node.stats().restarts);
        (before..lost).for_each(|_| trial.event());
        rounds += 1;
    }
    trial.figure("rounds", f64::from(rounds));
    trial.figure("workers_lost", lost as f64);
    stage.finish(vec![running], trial);
    drop(member);
    Ok(())
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
