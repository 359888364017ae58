//! An attached host as a process of its own, and what can be seen of a node's workers from outside.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The program `attached-host`; killed when dropped.
#[derive(Debug)]
pub struct Host {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Host {
    /// Starts it; `Err` has what it says where it cannot attach.
    ///
    /// # Errors
    /// Its one line.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn attach(socket: &Path) -> Result<Self, String> {
        Self::start(Command::new(crate::program("attached-host")), socket)
    }

    /// As [`attach`](Self::attach), as another user, from a copy of the program in a folder that everybody can read.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    ///
    /// # Panics
    /// As [`attach`](Self::attach).
    pub fn attach_as(user: u32, folder: &Path, socket: &Path) -> Result<Self, String> {
        let mut command = Command::new(reachable("attached-host", folder));
        command.uid(user).gid(user);
        Self::start(command, socket)
    }

    fn start(mut command: Command, socket: &Path) -> Result<Self, String> {
        command.arg(socket).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the host's program starts");
        let orders = child.stdin.take().expect("its input is a pipe");
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
        let mut host = Self { child, orders, answers };
        match host.answer() {
            said if said == "attached" => Ok(host),
            said => Err(said),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order.
    ///
    /// # Panics
    /// Where the host is gone.
    pub fn order(&mut self, line: &str) {
        writeln!(self.orders, "{line}").expect("the host lives");
    }

    /// The answer to the first order that has none.
    ///
    /// # Panics
    /// Where the host is gone.
    pub fn answer(&mut self) -> String {
        self.answers.next().expect("the host lives").expect("a line of text")
    }

    /// Gives an order and waits for the answer.
    ///
    /// # Panics
    /// Where the host is gone.
    pub fn ask(&mut self, line: &str) -> String {
        self.order(line);
        self.answer()
    }

    /// Ends it without a moment's notice.
    pub fn kill(mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A copy of a program in a folder that everybody can read. It is made by another process: one that this process forks while it writes the copy could not be told from one
/// that is writing it, and a program that is being written is not started.
fn reachable(name: &str, folder: &Path) -> PathBuf {
    let copy = folder.join(name);
    if !copy.exists() {
        let status = Command::new("cp").arg(crate::program(name)).arg(&copy).status();
        assert!(status.expect("there is `cp`").success(), "a copy of the program");
    }
    copy
}

/// Runs the program `hostile-host` to its end; what it says. As another user where one is given, from a copy in `folder`.
///
/// # Panics
/// Where it fails.
#[must_use]
pub fn hostile(user: Option<u32>, folder: &Path, socket: &Path, deed: &str) -> String {
    let mut command = Command::new(reachable("hostile-host", folder));
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.arg(socket).arg(deed).stderr(Stdio::inherit()).output().expect("it starts");
    assert!(output.status.success(), "hostile-host {deed}: {}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// CPU time that a process of one thread has used, in nanoseconds; `None` where it has gone.
#[must_use]
pub fn cpu_ns(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Does something that makes this worker work, and waits until it is at it: a call that was submitted may not have been started yet. For calls that use
/// far more of the core than 10 ms, of a worker that was idle before.
///
/// # Panics
/// Where there is no such process.
pub fn at_work<T>(pid: u32, begin: impl FnOnce() -> T) -> T {
    const STARTED: u64 = 10_000_000;
    let used = || cpu_ns(pid).expect("the worker lives");
    let before = used();
    let begun = begin();
    while used() - before < STARTED {
        std::thread::sleep(Duration::from_millis(1));
    }
    begun
}

/// What a process holds: descriptors, mappings, and KiB of resident memory.
///
/// # Panics
/// Where there is no such process.
#[must_use]
pub fn holdings(pid: u32) -> [usize; 3] {
    let text =
        |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process lives");
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let status = text("status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib = resident.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    [fds, text("maps").lines().count(), kib]
}
