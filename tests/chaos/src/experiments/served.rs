//! A node in a process of its own, which experiments kill, stop and talk to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use microfaas_node::{Node, Request, Status};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::experiments::hosts::SOCKET;
use crate::footprint::{Footprint, descendants};
use crate::ledger::Ledger;
use crate::log::BYTES_PER_EVENT;
use crate::modules::put;
use crate::role::{LOG, Role, connect};
use crate::stage::{HEAL, MODULE, SETTLE, enter};
use crate::trial::{Stop, Trial};
use crate::victim::{Victim, until};

/// See the module; this process is attached to it.
pub(super) struct Served {
    pub(super) server: Option<Role>,
    pub(super) host: Node,
    pub(super) ledger: Arc<Ledger>,
    before: Footprint,
    pub(super) socket: PathBuf,
    pub(super) folder: TempDir,
}

impl Served {
    pub(super) fn start(trial: &Trial) -> Result<Self, Stop> {
        Self::start_as(trial, Role::server)
    }

    /// With a gateway.
    pub(super) fn start_on_the_web(trial: &Trial) -> Result<Self, Stop> {
        Self::start_as(trial, Role::gateway)
    }

    fn start_as(trial: &Trial, start: fn(&Path, &Path) -> Result<Role, Stop>) -> Result<Self, Stop> {
        let folder = tempfile::tempdir()?;
        put(folder.path(), MODULE, &trial.modules.version(0))?;
        let socket = folder.path().join(SOCKET);
        let ledger = Arc::new(Ledger::new(1 << 20));
        let server = start(folder.path(), &socket)?;
        let host = connect(&socket)?;
        let answer = host.call("answer", Request::new(b""));
        if answer.status != Status::Error {
            return Err(Stop::Failed(format!("a node that has just started answers {answer:?}")));
        }
        until(HEAL, || stands(server.process.pid));
        let before = Footprint::now();
        Ok(Self { server: Some(server), host, ledger, before, socket, folder })
    }

    /// What is held is what is to be held at the end, from when the process has gone in which a deployment was tried out, and the lanes of those who looked in.
    pub(super) fn measure(&mut self) {
        if let Some(server) = &self.server {
            until(HEAL, || stands(server.process.pid));
        }
        self.before = Footprint::now();
    }

    /// Kills the node and starts another in its place. Its processes end with it; the host, which is refused meanwhile, comes back.
    pub(super) fn kill_and_start(&mut self, trial: &mut Trial) -> Result<(), Stop> {
        trial.event();
        self.end_server(trial, Signal::SIGKILL)?;
        let refused = until(HEAL, || self.host.submit("answer", Request::new(b"")).is_err());
        trial.expect(refused, || "a host without a node takes calls".to_owned());
        self.server = Some(Role::server(self.folder.path(), &self.socket)?);
        let ok = self.ledger.outcomes(Status::Ok);
        let back = until(HEAL, || self.ledger.outcomes(Status::Ok) > ok);
        trial.expect(back, || "a host does not come back to its node".to_owned());
        Ok(())
    }

    /// Ends the node by a signal, and sees that its processes end with it.
    pub(super) fn end_server(&mut self, trial: &mut Trial, by: Signal) -> Result<(), Stop> {
        let Some(server) = self.server.take() else { return Ok(()) };
        let mut workers = Vec::new();
        for (pid, _) in descendants(server.process.pid) {
            workers.extend(Victim::open(pid)?);
        }
        server.process.send(by)?;
        let status = server.wait()?;
        trial.expect(status.success() || by != Signal::SIGTERM, || {
            format!("a node that was told to stop ended with {status}")
        });
        for worker in workers {
            let ended = worker.ends_within(HEAL)?;
            trial.expect(ended, || format!("process {} outlives its node", worker.pid));
        }
        Ok(())
    }

    /// I7, of the nodes there were.
    pub(super) fn check_log(&self, trial: &mut Trial) {
        let logged = std::fs::metadata(self.folder.path().join(LOG)).map_or(0, |file| file.len());
        trial.figure("node_logged", logged as f64);
        let events = trial.verdict.events + 1;
        trial.expect((1..=events * BYTES_PER_EVENT).contains(&logged), || {
            format!("a node has logged {logged} bytes of {events} events")
        });
    }

    /// Ends it; what it held is given back.
    pub(super) fn finish(mut self, trial: &mut Trial) {
        let (start, mut more) = (Instant::now(), Vec::new());
        until(SETTLE, || {
            more = Footprint::now().beyond(&self.before);
            more.is_empty()
        });
        trial.figure("settle_ms", start.elapsed().as_secs_f64() * 1000.0);
        trial.verdict.problems.extend(more);
        drop(self.server.take());
        self.check_log(trial);
        enter(&self.ledger, trial);
    }
}

/// Whether a node has two workers, each with a lane of its own and one of a host, and the spare, which is started when they serve, has its lane too. Lanes are seen by descriptors, which
/// have these numbers in a worker, and no others while it is made ready; where nobody may see them, by processes.
fn stands(node: u32) -> bool {
    let (mut processes, mut lanes, mut ready) = (0, 0, true);
    for (pid, _) in descendants(node) {
        processes += 1;
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for number in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            lanes += u32::from(number >= 128);
            ready &= number <= 3 || number >= 128;
        }
    }
    processes == 3 && ready && (lanes == 5 || lanes == 0 && !nix::unistd::geteuid().is_root())
}
