//! Running the command, under a watchdog.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// No command takes this long unless it hangs; compiling a module is the longest.
const WATCHDOG: Duration = Duration::from_secs(300);

/// What a process left.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None if a signal ended it.
    pub(crate) exit: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.out).unwrap()
    }

    /// Fails unless it ended with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.exit, Some(0), "{}", self.err);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap()
    }
}

/// A process that is ended when the test is.
pub(crate) struct Running {
    child: Child,
    out: mpsc::Receiver<String>,
    /// What was read of its standard error, in whole lines.
    log: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
    /// Where nobody reads it.
    unread: Option<ChildStderr>,
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_microfaas"));
    command.current_dir(dir).args(args).env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// Runs it to its end.
pub(crate) fn run(dir: &Path, args: &[&str]) -> Ended {
    run_with_input(dir, args, b"")
}

pub(crate) fn run_with_input(dir: &Path, args: &[&str], input: &[u8]) -> Ended {
    let mut child = command(dir, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (out, err) = (read_all(child.stdout.take().unwrap()), read_all(child.stderr.take().unwrap()));
    write_all(child.stdin.take().unwrap(), input);
    let exit = wait(&mut child);
    Ended { exit, out: out.join().unwrap(), err: String::from_utf8(err.join().unwrap()).unwrap() }
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    })
}

/// A command that does not read its input closes the pipe: that is its right.
fn write_all(mut to: ChildStdin, input: &[u8]) {
    let _ = to.write_all(input);
}

fn wait(child: &mut Child) -> Option<i32> {
    let step = Duration::from_millis(5);
    for _ in 0..WATCHDOG.as_millis() / step.as_millis() {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(step);
    }
    child.kill().unwrap();
    panic!("process {} did not end", child.id());
}

impl Running {
    /// Starts it and waits for the line `ready`; gives the lines before it.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> (Self, Vec<String>) {
        Self::start_in(dir, args, &[])
    }

    /// As [`start`](Self::start), with these variables in its environment.
    pub(crate) fn start_in(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> (Self, Vec<String>) {
        let mut running = Self::begin(dir, args, env);
        running.read_log();
        let said = running.ready();
        (running, said)
    }

    /// Starts it, and neither waits nor reads its standard error.
    pub(crate) fn begin(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::begin_with(dir, args, env, Stdio::piped())
    }

    /// As [`begin`](Self::begin), with this as its standard error.
    pub(crate) fn begin_with(dir: &Path, args: &[&str], env: &[(&str, &str)], err: Stdio) -> Self {
        let mut child = command(dir, args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(err)
            .spawn()
            .unwrap();
        let (send, out) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        let unread = child.stderr.take();
        Self { child, out, log: Arc::default(), reader: None, unread }
    }

    /// From now on its standard error is read.
    pub(crate) fn read_log(&mut self) {
        let Some(mut lines) = self.unread.take().map(BufReader::new) else { return };
        let log = Arc::clone(&self.log);
        self.reader = Some(thread::spawn(move || {
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).unwrap() > 0 {
                log.lock().unwrap().append(&mut line);
            }
        }));
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// Waits for the line `ready`; gives the lines before it.
    pub(crate) fn ready(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            match self.out.recv_timeout(WATCHDOG) {
                Ok(line) if line == "ready" => return said,
                Ok(line) => said.push(line),
                Err(_) => panic!("not ready after {said:?}: {}", self.end("-KILL").err),
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; the process may still run.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(&mut self, signal: &str) -> Ended {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(signal);
        }
        self.ended()
    }

    /// Waits for the end.
    pub(crate) fn ended(&mut self) -> Ended {
        let exit = wait(&mut self.child);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Ended { exit, out: Vec::new(), err: self.log() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only while it runs is the number its own.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The directory with the probe's module; built once for all tests of a process. Processes share it: a module is replaced whole.
pub(crate) fn probe() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let out = scratch.join("probe");
        let crate_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/functions/probe");
        let target = scratch.join("functions").display().to_string();
        run(scratch, &["build", crate_dir, "--dev", "-o", out.to_str().unwrap(), "--target-dir", &target])
            .ok();
        out
    });
    &BUILT
}

/// Waits until this is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let step = Duration::from_millis(20);
    for _ in 0..WATCHDOG.as_millis() / step.as_millis() {
        if is_so() {
            return;
        }
        thread::sleep(step);
    }
    panic!("{what} did not come about");
}

/// Runs the command with the probe's modules.
pub(crate) fn with_probe(args: &[&str]) -> Ended {
    with_probe_and_input(args, b"")
}

pub(crate) fn with_probe_and_input(args: &[&str], input: &[u8]) -> Ended {
    let probe = probe();
    let args = [args, &["--modules", probe.to_str().unwrap()]].concat();
    run_with_input(probe, &args, input)
}
