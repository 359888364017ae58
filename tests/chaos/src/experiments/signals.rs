//! Signals that mean no harm, and cores that come and go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use microfaas_node::{RestartCause, Status};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::load::Load;
use crate::raw::let_interrupt;
use crate::stage::{HEAL, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::Worker;

/// Between two rounds of signals to every thread.
const PAUSE: Duration = Duration::from_micros(500);
/// Between two rounds of signals to workers.
const WORKER_PAUSE: Duration = Duration::from_micros(50);

/// Threads of a process.
fn threads(pid: u32) -> Vec<Pid> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw).collect()
}

/// Interrupts whatever the threads of this process wait for, all the time. Over when dropped.
struct Storm {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    fn start() -> Result<Self, Stop> {
        let_interrupt(Signal::SIGUSR1)?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for thread in threads(std::process::id()) {
                    // The kernel takes the number of a thread, and gives it the signal of the process. One that has ended meanwhile has no need of it.
                    count.fetch_add(kill(thread, Signal::SIGUSR1).is_ok().into(), Ordering::Relaxed);
                }
                std::thread::sleep(PAUSE);
            }
        });
        Ok(Self { stop, sent, thread: Some(thread) })
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// G01. Every thread of a host is interrupted all the time, whatever it waits for, as by a profiler: its node starts, workers are killed and replaced and versions deployed as ever.
pub(super) fn interrupted(trial: &mut Trial) -> Result<(), Stop> {
    let storm = Storm::start()?;
    let stage = Stage::start_with(trial, |builder| builder.restarts(u32::MAX))?;
    let stage = stage.loses(&[RestartCause::Died]);
    let running = stage.load(&Load { may_end: &[Status::WorkerLost], ..Load::default() }, trial);
    let mut version = 0;
    while !trial.is_over(0.6) {
        trial.event();
        std::thread::sleep(trial.some_time(Duration::from_millis(20)));
        if let Some(worker) = Worker::of(&stage.node, version as usize % 2)? {
            let replaced = worker.kill_and_wait(&stage.node, HEAL)?;
            trial.expect(replaced.is_some(), || format!("worker {} is not replaced", worker.index));
        }
        version += 1;
        trial.event();
        stage.node.deploy(stage.put_version(version, trial)?)?;
        running.watch().version.store(version, Ordering::SeqCst);
    }
    trial.figure("kills", f64::from(version));
    let sent = storm.sent.load(Ordering::Relaxed);
    trial.figure("signals", sent as f64);
    trial.expect(sent > 0, || "nobody was interrupted".to_owned());
    stage.finish(vec![running], trial);
    drop(storm);
    Ok(())
}

/// G02. Workers get the signals that they themselves live by, far more often than anybody means: calls are suspended and go on, and none ends otherwise for it.
pub(super) fn alarmed(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?;
    let load = Load { spin_us: 0..3000, threads: 3, ..Load::default() };
    let running = stage.load(&load, trial);
    let workers = [Worker::of(&stage.node, 0)?, Worker::of(&stage.node, 1)?];
    trial.event();
    let mut sent = 0u64;
    while !trial.is_over(0.6) {
        for worker in workers.iter().flatten() {
            for signal in [Signal::SIGALRM, Signal::SIGURG] {
                worker.process.send(signal)?;
                sent += 1;
            }
        }
        std::thread::sleep(WORKER_PAUSE);
    }
    trial.figure("signals", sent as f64);
    trial.expect(sent > 0, || "no worker got a signal".to_owned());
    drop(workers);
    stage.finish(vec![running], trial);
    Ok(())
}

/// P01. The cores on which each thread and worker may run change all the time, as where a group of processors shrinks and grows: what is on its way goes on elsewhere.
pub(super) fn cores_come_and_go(trial: &mut Trial) -> Result<(), Stop> {
    let whole = sched_getaffinity(Pid::from_raw(0))?;
    let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| whole.is_set(*core) == Ok(true)).collect();
    if cores.len() < 2 {
        return Err(Stop::Skip("there is one core".to_owned()));
    }
    let stage = Stage::start_with(trial, |builder| builder.restarts(u32::MAX))?;
    let stage = stage.loses(&[RestartCause::Died]);
    let running = stage.load(&Load { may_end: &[Status::WorkerLost], ..Load::default() }, trial);
    let (mut moves, mut seen) = (0u32, BTreeSet::new());
    // Those on one core alone have not moved.
    while seen.len() < 2 || !trial.is_over(0.6) {
        trial.event();
        let workers = [Worker::of(&stage.node, 0)?, Worker::of(&stage.node, 1)?];
        let pids = workers.iter().flatten().map(|worker| worker.process.pid);
        for pid in pids.chain([std::process::id()]) {
            let core = cores[trial.random.usize(..cores.len())];
            let mut set = CpuSet::new();
            set.set(core)?;
            seen.insert(core);
            for thread in threads(pid) {
                // It may have ended.
                moves += u32::from(sched_setaffinity(thread, &set).is_ok());
            }
        }
        std::thread::sleep(trial.some_time(Duration::from_millis(20)));
        if moves % 8 == 0
            && let [Some(worker), _] = &workers
        {
            let replaced = worker.kill_and_wait(&stage.node, HEAL)?;
            trial.expect(replaced.is_some(), || format!("worker {} is not replaced", worker.index));
        }
    }
    trial.figure("moves", f64::from(moves));
    trial.expect(moves > 0, || "nothing was moved".to_owned());
    for thread in threads(std::process::id()) {
        let _ = sched_setaffinity(thread, &whole);
    }
    stage.finish(vec![running], trial);
    Ok(())
}
