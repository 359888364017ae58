//! K29: everything, in an order that the seed decides.

use std::ops::Range;
use std::time::{Duration, Instant};

use microfaas_node::{FunctionConfig, Loading, Request, RestartCause, Status};
use nix::sys::signal::Signal;

use crate::experiments::limits::without_descriptors;
use crate::experiments::served::Served;
use crate::footprint::descendants;
use crate::load::Load;
use crate::modules::{numbered_answer, numbered_name, put};
use crate::role::{Manner, Role};
use crate::stage::{HEAL, MODULE, OTHER, Stage, enter};
use crate::trial::{Stop, Trial};
use crate::victim::{Victim, Worker, until};

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
    /// Another node, in a process of its own, to which this process is attached.
    served: Served,
    version: u32,
    ends: Vec<Instant>,
}

/// Modules that are loaded when they are called, by their numbers, and how many modules there is room for.
const COLD: Range<u32> = 1000..1006;
const ROOM: u32 = 3;

pub(super) fn random(trial: &mut Trial) -> Result<(), Stop> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("socket");
    let mut stage = Stage::start_with(trial, |builder| {
        let at_start = FunctionConfig::default().load(Loading::Start);
        let builder = builder.socket(&socket).stall(STALL).modules_max(ROOM);
        builder.load_default(Loading::FirstCall).function("answer", at_start)
    })?
    .loses(&[RestartCause::Died, RestartCause::Hung, RestartCause::Silent, RestartCause::Stayed]);
    stage.guests = true;
    for number in COLD {
        let file = format!("{}.so", numbered_name(number));
        stage.node.deploy(put(stage.folder(), &file, &trial.modules.numbered(number))?)?;
        call_cold(&stage, number, trial);
    }
    stage.measure();
    let short = Duration::from_millis(200);
    let patient = Load { may_end: MAY_END, hang_up: 100, ..Load::default() };
    let hasty = Load {
        deadline: short..2 * short,
        threads: 2,
        functions: vec!["answer", "answer_again"],
        ..patient.clone()
    };
    let loads = vec![stage.load(&patient, trial), stage.load(&hasty, trial)];
    let served = Served::start(trial)?;
    let attached = Load { may_end: MAY_END, hang_up: 100, threads: 2, ..Load::default() };
    let attached = attached.start(&served.host, &served.ledger, &mut trial.random);
    let mut mix = Mix { stage, socket, hosts: Vec::new(), served, version: 0, ends: Vec::new() };
    let mut steps = 0u64;
    while !trial.is_over(0.8) {
        std::thread::sleep(trial.some_time(Duration::from_millis(80)));
        trial.event();
        mix.step(trial)?;
        steps += 1;
    }
    trial.figure("steps", steps as f64);
    // All of its calls that are on their way end, and it ends well.
    mix.served.end_server(trial, Signal::SIGTERM)?;
    trial.verdict.problems.extend(attached.stop());
    enter(&mix.served.ledger, trial);
    mix.served.check_log(trial);
    drop(mix.served);
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

/// Calls a function whose module may be cold.
fn call_cold(stage: &Stage, number: u32, trial: &mut Trial) {
    let name = numbered_name(number);
    let answer = stage.call(name.as_str(), Request::new(b"").deadline(HEAL));
    let right = match answer.status {
        Status::Ok => answer.body == numbered_answer(number),
        // It had started when its worker was killed, or there was none for a moment.
        status => matches!(status, Status::WorkerLost | Status::Overloaded),
    };
    trial.expect(right, || format!("{name} ended {}: {}", answer.status, answer.detail));
}

impl Mix {
    fn step(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        match trial.random.u8(0..19) {
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
            11 => self.stop_host(trial),
            12 => self.served.kill_and_start(trial),
            13 => self.stop_node(trial),
            14 => self.reload(trial),
            15 => without_descriptors(trial.some_time(Duration::from_millis(30))),
            16 | 17 => {
                for _ in 0..4 {
                    call_cold(&self.stage, trial.random.u32(COLD), trial);
                }
                Ok(())
            }
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

    fn stop_host(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        if self.hosts.is_empty() {
            return Ok(());
        }
        let host = &self.hosts[trial.random.usize(..self.hosts.len())];
        host.process.send(Signal::SIGSTOP)?;
        std::thread::sleep(trial.some_time(2 * STALL));
        Ok(host.process.send(Signal::SIGCONT)?)
    }

    /// Stops the other node for a while, with its workers or without.
    fn stop_node(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        let Some(server) = &self.served.server else { return Ok(()) };
        let mut all = vec![server.process.clone()];
        if trial.random.bool() {
            for (pid, _) in descendants(server.process.pid) {
                all.extend(Victim::open(pid)?);
            }
        }
        all.iter().try_for_each(|process| process.send(Signal::SIGSTOP))?;
        std::thread::sleep(trial.some_time(3 * STALL));
        Ok(all.iter().try_for_each(|process| process.send(Signal::SIGCONT))?)
    }

    /// The other node reads its modules again, of which one has changed.
    fn reload(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        self.version += 1;
        put(self.served.folder.path(), MODULE, &trial.modules.version(self.version))?;
        let Some(server) = &self.served.server else { return Ok(()) };
        Ok(server.process.send(Signal::SIGHUP)?)
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
