//! The second process, and the guarantee that neither outlives the other or the time it was given.

use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::{Args, EXIT_PEER, EXIT_WATCHDOG};

/// Over the measured time: starting, warming up, ending.
const GRACE: Duration = Duration::from_secs(15);
/// How often the watchdog looks. It takes the client's core for some microseconds each time.
const LOOK: Duration = Duration::from_millis(250);

/// The server process. A thread of the client watches it and the clock; a server that ends by itself, or a client that runs
/// too long, ends both at once, since the client may be spinning on memory that nobody writes any more.
#[derive(Debug)]
pub(crate) struct Server {
    child: Arc<Mutex<Child>>,
    done: Arc<AtomicBool>,
}

impl Server {
    /// Starts this program again as the server.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start(
        name: &'static str,
        args: &Args,
        stdin: Stdio,
        cleanup: fn(u32),
    ) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
        let child = Command::new(program)
            .args(["--payload", &args.payload.to_string(), "--seconds", &args.seconds.to_string()])
            .args([
                "--server-cpu",
                &args.server_cpu.to_string(),
                "--client-cpu",
                &args.client_cpu.to_string(),
            ])
            .args(["--client-pid", &std::process::id().to_string()])
            .stdin(stdin)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start the server: {e}"))?;
        let server = Self { child: Arc::new(Mutex::new(child)), done: Arc::default() };
        let (child, done) = (Arc::clone(&server.child), Arc::clone(&server.done));
        let deadline = Instant::now() + args.duration() + GRACE;
        std::thread::spawn(move || watch(name, &child, &done, deadline, cleanup));
        Ok(server)
    }

    /// Ends the server and waits for it.
    pub(crate) fn end(self) {
        self.done.store(true, Ordering::Release);
        end(&self.child);
    }
}

fn watch(name: &str, child: &Mutex<Child>, done: &AtomicBool, deadline: Instant, cleanup: fn(u32)) {
    while !done.load(Ordering::Acquire) {
        let gone = lock(child).try_wait().ok().flatten();
        // Looked at again: the client may have ended the server between the two.
        let (why, code) = match gone {
            Some(status) if !done.load(Ordering::Acquire) => {
                (format!("the server ended: {status}"), EXIT_PEER)
            }
            _ if Instant::now() > deadline => (format!("not done {GRACE:?} after its time"), EXIT_WATCHDOG),
            _ => {
                std::thread::sleep(LOOK);
                continue;
            }
        };
        eprintln!("rival-{name}: {why}");
        end(child);
        cleanup(std::process::id());
        std::process::exit(i32::from(code));
    }
}

fn end(child: &Mutex<Child>) {
    let mut child = lock(child);
    // Both fail only when it is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The server's first steps: die with the client, end in time whatever happens, go to its core.
///
/// # Errors
/// When the kernel refuses one of them, or the client is gone already.
pub(crate) fn be_server(args: &Args, client_pid: u32) -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("cannot ask to die with the client: {e}"))?;
    if parent_id() != client_pid {
        return Err(format!("the client (pid {client_pid}) is gone"));
    }
    let time = args.duration() + 2 * GRACE;
    std::thread::spawn(move || {
        std::thread::sleep(time);
        std::process::exit(i32::from(EXIT_WATCHDOG));
    });
    pin(args.server_cpu)
}

/// Binds the calling thread to one core.
///
/// # Errors
/// When there is no such core, or this process may not use it.
pub(crate) fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu).map_err(|_| format!("core {cpu}: no such number"))?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|e| format!("core {cpu}: {e}"))
}
