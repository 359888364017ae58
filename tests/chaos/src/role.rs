//! Processes that experiments start and kill: a node that is served, a host that is attached, a host with a node of its own.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use microfaas_node::{Node, Status};
use nix::sys::ptrace;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::forker::fork_until;
use crate::ledger::{Counts, GRACE, Ledger};
use crate::load::{Load, Running, p50_p99_ms};
use crate::modules::{Modules, put};
use crate::stage::{MODULE, builder};
use crate::trial::Stop;
use crate::victim::{Victim, until};

/// Environment variable that names the path of the command's program.
const COMMAND_VARIABLE: &str = "MICROFAAS_COMMAND";
/// Else it lies beside this one.
const COMMAND: &str = "microfaas";
/// In the folder of its modules: the settings of a served node.
pub const SETTINGS_FILE: &str = "microfaas.toml";
/// There too: what it has logged.
pub const LOG: &str = "log";
/// Of a served node: it has time to end calls that take long, and one function's may.
const SETTINGS: &str = "[node]\nstop_timeout = \"60s\"\n\n[function.answer_again]\nbudget = \"60s\"\n";
/// After which a worker of a hasty host counts as hung.
const STALL: Duration = Duration::from_millis(600);
const REQUESTS: usize = 1 << 18;

/// A process that has said that it is ready. Killed when dropped.
#[derive(Debug)]
pub struct Role {
    child: Child,
    orders: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
    /// What it said when it was ready.
    pub ready: String,
    /// Where it listens for clients of its gateway, if it said so.
    pub address: String,
    /// To signal it.
    pub process: Victim,
}

/// What an attached host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Calls, and checks the answers.
    Load,
    /// Takes every slot that it can have, and gives none back.
    Leak,
    /// As `Load`, and forks all the time. Its children live until it is told that it is enough, or dropped.
    Fork,
}

impl Role {
    fn start(command: Command) -> Result<Self, Stop> {
        let mut role = Self::begin(command)?;
        for line in role.said.by_ref() {
            let line = line?;
            if let Some(rest) = line.strip_prefix("listening on http://") {
                role.address = rest.to_owned();
            }
            if let Some(rest) = line.strip_prefix("ready") {
                role.ready = rest.trim().to_owned();
                return Ok(role);
            }
        }
        let status = role.child.wait()?;
        Err(Stop::Failed(format!("a process that was to be ready ended with {status}")))
    }

    /// It is not ready yet.
    fn begin(mut command: Command) -> Result<Self, Stop> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take();
        let said = child.stdout.take().expect("its output is a pipe");
        let process = Victim::open(child.id())?;
        let process =
            process.ok_or_else(|| Stop::Failed("a process ended before it could be opened".to_owned()))?;
        let (ready, address) = (String::new(), String::new());
        Ok(Self { child, orders, said: BufReader::new(said).lines(), ready, address, process })
    }

    fn of_this_program<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Self, Stop> {
        Self::start(this_program(arguments)?)
    }

    /// The command `microfaas serve` with a socket and two workers.
    ///
    /// # Errors
    /// [`Stop::Skip`] where the command is not there.
    pub fn server(modules: &Path, socket: &Path) -> Result<Self, Stop> {
        Self::start(Self::serve(modules, socket)?)
    }

    /// The same with a gateway.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn gateway(modules: &Path, socket: &Path) -> Result<Self, Stop> {
        let mut command = Self::serve(modules, socket)?;
        command.args(["--http", "127.0.0.1:0"]);
        Self::start(command)
    }

    /// As [`server`](Self::server), and does not wait until it is ready.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn server_starting(modules: &Path, socket: &Path) -> Result<Self, Stop> {
        Self::begin(Self::serve(modules, socket)?)
    }

    fn serve(modules: &Path, socket: &Path) -> Result<Command, Stop> {
        let beside = std::env::current_exe()?.with_file_name(COMMAND);
        let program = std::env::var_os(COMMAND_VARIABLE).map_or(beside, PathBuf::from);
        if !program.is_file() {
            return Err(Stop::Skip(format!("`{}` is not built", program.display())));
        }
        let mut command = Command::new(program);
        let settings = modules.join(SETTINGS_FILE);
        std::fs::write(&settings, SETTINGS)?;
        command.args(["serve", "--workers", "2", "--config"]).arg(settings);
        command.arg("--modules").arg(modules).arg("--socket").arg(socket);
        command.env("RUST_LOG", "info");
        command.stderr(OpenOptions::new().create(true).append(true).open(modules.join(LOG))?);
        Ok(command)
    }

    /// A host that is attached to this socket.
    ///
    /// # Errors
    /// Where it cannot attach.
    pub fn host(socket: &Path, manner: Manner, seed: u64) -> Result<Self, Stop> {
        let manner = match manner {
            Manner::Load => "load",
            Manner::Leak => "leak",
            Manner::Fork => "fork",
        };
        Self::of_this_program([OsStr::new(manner), socket.as_os_str(), OsStr::new(&seed.to_string())])
    }

    /// A host that is about to attach to this socket, to call.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn host_starting(socket: &Path, seed: u64) -> Result<Self, Stop> {
        let seed = seed.to_string();
        Self::begin(this_program([OsStr::new("load"), socket.as_os_str(), OsStr::new(&seed)])?)
    }

    /// A host with a node of two workers; says their process ids when it is ready.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn embedded(modules: &Path, seed: u64) -> Result<Self, Stop> {
        Self::of_this_program([OsStr::new("embedded"), modules.as_os_str(), OsStr::new(&seed.to_string())])
    }

    /// As [`embedded`](Self::embedded), and does not wait until it is ready.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn embedded_starting(modules: &Path, seed: u64) -> Result<Self, Stop> {
        let seed = seed.to_string();
        Self::begin(this_program([OsStr::new("embedded"), modules.as_os_str(), OsStr::new(&seed)])?)
    }

    /// A process that has stopped this one as a debugger does, and does not look at it any more.
    ///
    /// # Errors
    /// Where it may not.
    pub fn tracer(of: &Victim) -> Result<Self, Stop> {
        Self::of_this_program(["tracer", "", &of.pid.to_string()])
    }

    /// As [`embedded`](Self::embedded), and forks all the time.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn embedded_forking(modules: &Path, seed: u64) -> Result<Self, Stop> {
        Self::of_this_program([
            OsStr::new("embedded-fork"),
            modules.as_os_str(),
            OsStr::new(&seed.to_string()),
        ])
    }

    /// As [`embedded`](Self::embedded), with short deadlines and little patience.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn hasty(modules: &Path, seed: u64) -> Result<Self, Stop> {
        Self::of_this_program([OsStr::new("hasty"), modules.as_os_str(), OsStr::new(&seed.to_string())])
    }

    /// A process that has so much memory.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn balloon(mib: u64) -> Result<Self, Stop> {
        Self::of_this_program(["balloon", "", &mib.to_string()])
    }

    /// Tells it that it is enough; what it says to that.
    ///
    /// # Errors
    /// Where it says nothing.
    pub fn ask(&mut self) -> Result<String, Stop> {
        drop(self.orders.take());
        let line = self.said.next().transpose()?;
        line.ok_or_else(|| Stop::Failed("a process ended without a word".to_owned()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As `waitpid(2)`.
    pub fn wait(mut self) -> std::io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn this_program<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("role").args(arguments);
    Ok(command)
}

/// Plays the role that these arguments name. To be called by the program.
///
/// # Errors
/// Where it cannot.
pub fn play(arguments: &[String]) -> Result<(), Stop> {
    let [role, path, seed] = arguments else {
        return Err(Stop::Failed("a role has three arguments".to_owned()));
    };
    let (path, seed) = (PathBuf::from(path), seed.parse().unwrap_or(0));
    let mut random = fastrand::Rng::with_seed(seed);
    let ledger = Arc::new(Ledger::new(REQUESTS));
    let load = Load {
        threads: 3,
        may_end: &[Status::WorkerLost, Status::Timeout, Status::Expired, Status::Cancelled],
        ..Load::default()
    };
    match role.as_str() {
        "load" => {
            let node = connect(&path)?;
            let running = load.start(&node, &ledger, &mut random);
            say("ready")?;
            wait_for_end();
            // It may be told to end before it had the core for its first call, and what it has to tell is of calls.
            until(GRACE, || ledger.outcomes(Status::Ok) > 0);
            tell(&node, running, &ledger)
        }
        "fork" => fork(&connect(&path)?, &load, &mut random),
        "embedded-fork" => {
            let folder = tempfile::tempdir()?;
            put(folder.path(), MODULE, &Modules::read(&path)?.version(0))?;
            fork(&builder(folder.path()).start()?, &load, &mut random)
        }
        "leak" => {
            let node = connect(&path)?;
            while let Ok(slot) = node.prepare("answer", 64, 0) {
                std::mem::forget(slot);
            }
            say("ready")?;
            wait_for_end();
            Ok(())
        }
        "tracer" => {
            let pid = Pid::from_raw(i32::try_from(seed).unwrap_or(0));
            ptrace::seize(pid, ptrace::Options::empty())?;
            ptrace::interrupt(pid)?;
            say("ready")?;
            wait_for_end();
            Ok(())
        }
        "balloon" => {
            let mib = usize::try_from(seed).unwrap_or(0);
            let taken = std::hint::black_box(vec![1u8; mib << 20]);
            say("ready")?;
            wait_for_end();
            drop(taken);
            Ok(())
        }
        "embedded" | "hasty" => {
            let folder = tempfile::tempdir()?;
            put(folder.path(), MODULE, &Modules::read(&path)?.version(0))?;
            let mut builder = builder(folder.path());
            let mut load = load;
            if role == "hasty" {
                builder = builder.stall(STALL).heartbeat(STALL);
                load.deadline = STALL / 3..STALL * 2 / 3;
            }
            let node = builder.start()?;
            let running = load.start(&node, &ledger, &mut random);
            let pids: Vec<String> =
                node.workers().iter().filter_map(|worker| Some(worker.pid?.to_string())).collect();
            say(&format!("ready {}", pids.join(" ")))?;
            wait_for_end();
            tell(&node, running, &ledger)
        }
        other => Err(Stop::Failed(format!("there is no role `{other}`"))),
    }
}

/// Calls and forks until it is told that it is enough.
fn fork(node: &Node, load: &Load, random: &mut fastrand::Rng) -> Result<(), Stop> {
    let ledger = Arc::new(Ledger::new(REQUESTS));
    let running = load.start(node, &ledger, random);
    let is_over = AtomicBool::new(false);
    let began = || drop(say("ready"));
    let problems = std::thread::scope(|scope| {
        let forks = scope.spawn(|| fork_until(&is_over, node, began));
        wait_for_end();
        until(GRACE, || ledger.outcomes(Status::Ok) > 0);
        is_over.store(true, Ordering::Relaxed);
        forks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    match problems.first() {
        Some(problem) => say(problem),
        None => tell(node, running, &ledger),
    }
}

/// Attaches to the node that listens at a socket.
///
/// # Errors
/// Where it cannot.
pub fn connect(socket: &Path) -> Result<Node, Stop> {
    Node::connect(socket).map_err(|error| Stop::Failed(format!("cannot attach: {error}")))
}

/// What a host that was told to end has to tell.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// Of its calls.
    pub counts: Counts,
    /// Median and 99th percentile of their times in milliseconds, of those that ended OK.
    pub p50_p99_ms: (f64, f64),
    /// Workers of its node that have ended and were replaced.
    pub restarts: u64,
}

/// What a host that was told to end has said; `Err` where something was wrong.
///
/// # Errors
/// What it said instead.
pub fn told(said: &str) -> Result<Told, String> {
    serde_json::from_str(said).map_err(|_| said.to_owned())
}

fn tell(node: &Node, running: Running, ledger: &Ledger) -> Result<(), Stop> {
    let times = running.watch().take_times();
    let mut problems = running.stop();
    problems.extend(ledger.words());
    let counts = ledger.counts();
    if counts.lost > 0 {
        problems.push(format!("{} requests without an outcome", counts.lost));
    }
    if let Some(problem) = problems.first() {
        return say(&format!("{problem} ({} in all)", problems.len()));
    }
    let told = Told { counts, p50_p99_ms: p50_p99_ms(&times), restarts: node.stats().restarts };
    say(&serde_json::to_string(&told).map_err(std::io::Error::other)?)
}

/// Until whoever started this process closes its input, or dies.
fn wait_for_end() {
    let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
}

fn say(line: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{line}").and_then(|()| out.flush())?)
}
