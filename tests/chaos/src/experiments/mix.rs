//! K29: everything, in an order that the seed decides.

use std::time::{Duration, Instant};

use microfaas_node::{Request, RestartCause, Status};
use nix::sys::signal::Signal;

use crate::load::Load;
use crate::modules::put;
use crate::role::{Manner, Role};
use crate::stage::{HEAL, MODULE, OTHER, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::{Worker, until};

const STALL: Duration = Duration::from_millis(300);
/// Workers may end this often in [`CALM`] before the rest of them are left alone: beyond that the node pauses, which is K02's.
const ENDS_MAX: usize = 6;
const CALM: Duration = Duration::from_secs(10);
const MAY_END: &[Status] = &[Status::WorkerLost, Status::Timeout, Status::Expired];

/// What goes on.
struct Mix {
    stage: Stage,
    socket: std::path::PathBuf,
    hosts: Vec<Role>,
    version: u32,
    ends: Vec<Instant>,
}

pub(super) fn random(trial: &mut Trial) -> Result<(), Stop> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("socket");
    let stage = Stage::start_with(trial, |builder| builder.socket(&socket).stall(STALL))?;
    let mut stage = stage.loses(&[RestartCause::Died, RestartCause::Hung, RestartCause::Silent]);
    stage.guests = true;
    let short = Duration::from_millis(200);
    let patient = Load { may_end: MAY_END, hang_up: 100, ..Load::default() };
    let hasty = Load {
        deadline: short..2 * short,
        threads: 2,
        functions: vec!["answer", "answer_again"],
        ..patient.clone()
    };
    let loads = vec![stage.load(&patient, trial), stage.load(&hasty, trial)];
    let mut mix = Mix { stage, socket, hosts: Vec::new(), version: 0, ends: Vec::new() };
    let mut steps = 0u64;
    while !trial.is_over(0.8) {
        std::thread::sleep(trial.some_time(Duration::from_millis(80)));
        trial.event();
        mix.step(trial)?;
        steps += 1;
    }
    trial.figure("steps", steps as f64);
    for mut host in mix.hosts {
        // Those that leak have nothing to say.
        if let Ok(said) = host.ask() {
            match crate::role::told(&said) {
                Ok(told) => trial.verdict.counts.add(told.counts),
                Err(said) => trial.expect(false, || format!("an attached host: {said}")),
            }
        }
    }
    mix.stage.finish(loads, trial);
    Ok(())
}

impl Mix {
    fn step(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        match trial.random.u8(0..12) {
            0 | 1 => self.kill(trial),
            2 => self.stop(trial),
            3 | 4 => self.kill_host(trial),
            5 => self.start_host(Manner::Load, trial),
            6 => self.start_host(Manner::Leak, trial),
            7 => self.deploy(trial),
            8 => self.deploy_another(trial),
            9 => {
                let path = put(self.stage.folder(), "junk.so", b"\x7fELF and no more")?;
                let taken = self.stage.node.deploy(path).is_ok();
                trial.expect(!taken, || "junk was deployed".to_owned());
                Ok(())
            }
            10 => self.flood(trial),
            _ => self.misbehave(trial),
        }
    }

    /// Whether a worker may be ended now.
    fn may_end(&mut self) -> bool {
        self.ends.retain(|end| end.elapsed() < CALM);
        let may = self.ends.len() < ENDS_MAX;
        if may {
            self.ends.push(Instant::now());
        }
        may
    }

    fn kill(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        if !self.may_end() {
            return Ok(());
        }
        let Some(worker) = Worker::of(&self.stage.node, trial.random.usize(..2))? else { return Ok(()) };
        worker.process.kill()?;
        if trial.random.bool() {
            let replaced = until(HEAL, || worker.is_replaced(&self.stage.node));
            trial.expect(replaced, || format!("worker {} is not replaced", worker.index));
        }
        Ok(())
    }

    fn stop(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        if !self.may_end() {
            return Ok(());
        }
        let Some(worker) = Worker::of(&self.stage.node, trial.random.usize(..2))? else { return Ok(()) };
        worker.process.send(Signal::SIGSTOP)?;
        std::thread::sleep(trial.some_time(3 * STALL));
        worker.process.send(Signal::SIGCONT)?;
        Ok(())
    }

    fn start_host(&mut self, manner: Manner, trial: &mut Trial) -> Result<(), Stop> {
        if self.hosts.len() < 3 {
            self.hosts.push(Role::host(&self.socket, manner, trial.random.u64(..))?);
        }
        Ok(())
    }

    fn kill_host(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        if self.hosts.is_empty() {
            return Ok(());
        }
        let host = self.hosts.swap_remove(trial.random.usize(..self.hosts.len()));
        if trial.random.bool() {
            host.process.send(Signal::SIGSTOP)?;
            std::thread::sleep(trial.some_time(STALL));
        }
        host.process.kill()?;
        host.wait()?;
        Ok(())
    }

    fn deploy(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        self.version += 1;
        let path = self.stage.put_version(self.version, trial)?;
        self.stage.node.deploy(path)?;
        if trial.random.bool() {
            self.stage.node.rollback(MODULE)?;
        }
        Ok(())
    }

    fn deploy_another(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        let number = trial.random.u32(1..100);
        let path = put(self.stage.folder(), OTHER, &trial.modules.numbered(number))?;
        self.stage.node.deploy(path)?;
        self.stage.node.remove(OTHER)?;
        Ok(())
    }

    fn flood(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        let load = Load {
            functions: vec!["answer_flood"],
            window: 200,
            spin_us: 100..300,
            pause: Duration::from_micros(50),
            open_loop: true,
            may_end: MAY_END,
            ..Load::default()
        };
        let running = self.stage.load(&load, trial);
        std::thread::sleep(trial.some_time(Duration::from_millis(200)));
        trial.verdict.problems.extend(running.stop());
        Ok(())
    }

    fn misbehave(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        let function = ["hoard", "overflow", "panic", "spin"][trial.random.usize(..4)];
        let answer = self.stage.call(function, Request::new(b"").deadline(STALL));
        trial.expect(answer.status != Status::Ok, || format!("{function} ended OK"));
        Ok(())
    }
}
