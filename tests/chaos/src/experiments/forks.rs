//! Hosts that fork: their children have their descriptors, and as much of their memory as they are let.

use std::time::Duration;

use crate::experiments::hosts::stage_with_socket;
use crate::footprint::{Holdings, descendants};
use crate::load::Load;
use crate::role::{Manner, Role, told};
use crate::stage::HEAL;
use crate::trial::{Stop, Trial};
use crate::victim::{Victim, until};

/// F01. A host forks in the middle of its calls: of its children some stay, some end, and some call with what was their parent's, which must not hurt it. Then it is killed: its
/// lanes are taken back though its children still have its connection.
pub(super) fn hosts_fork(trial: &mut Trial) -> Result<(), Stop> {
    let (stage, socket, _folder) = stage_with_socket(trial)?;
    let running = stage.load(&Load::default(), trial);
    let mut rounds = 0;
    while !trial.is_over(0.7) {
        trial.event();
        let before = Holdings::of(std::process::id()).memfds;
        let mut host = Role::host(&socket, Manner::Fork, trial.random.u64(..))?;
        std::thread::sleep(trial.some_time(Duration::from_millis(200)));
        if rounds % 2 == 1 {
            let said = host.ask()?;
            let well =
                told(&said).is_ok_and(|told| told.counts.ok > 0 && told.counts.ok == told.counts.completed);
            trial.expect(well, || format!("a host that forks: {said}"));
        } else {
            let mut children = Vec::new();
            for (pid, _) in descendants(host.process.pid) {
                children.extend(Victim::open(pid)?);
            }
            host.process.kill()?;
            host.process.ends_within(HEAL)?;
            let memfds = || Holdings::of(std::process::id()).memfds;
            let is_back = until(HEAL, || memfds() <= before);
            let mut live = 0;
            for child in &children {
                live += u32::from(!child.ends_within(Duration::ZERO)?);
            }
            trial.expect(is_back, || {
                format!("{} memfds, {before} before, of a host of which {live} children live", memfds())
            });
            trial.expect(live > 0, || "no child outlives its host".to_owned());
        }
        // It is the last that has the other end of its input, so its children end, too.
        host.wait()?;
        rounds += 1;
    }
    trial.figure("rounds", f64::from(rounds));
    stage.finish(vec![running], trial);
    embedded(trial)
}

/// The same with a node of one's own: its workers are the parent's, and end with it.
fn embedded(trial: &mut Trial) -> Result<(), Stop> {
    trial.event();
    let mut host = Role::embedded_forking(&trial.folder, trial.random.u64(..))?;
    std::thread::sleep(trial.some_time(Duration::from_millis(200)));
    match told(&host.ask()?) {
        Ok(told) => {
            trial.expect(told.restarts == 0, || format!("{} workers were replaced", told.restarts));
            trial.verdict.counts.add(told.counts);
        }
        Err(said) => trial.expect(false, || format!("a host with a node that forks: {said}")),
    }
    host.wait()?;
    Ok(())
}
