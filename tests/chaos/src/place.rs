//! Where an experiment's process has to run: some need a view of the system of their own, which is entered before there is a second thread.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use microfaas_sys::namespaces::{Namespace, enter};
use nix::mount::{MsFlags, mount};

use crate::trial::Stop;

/// Set for the process that is where it has to be.
const THERE: &str = "MICROFAAS_CHAOS_THERE";
const SHARED_MEMORY: &str = "/dev/shm";
/// By how much the monotonic clock is ahead: a hundred years, in seconds.
const AHEAD_SECONDS: &str = "3155760000";

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// As it was started.
    Here,
    /// With a `/dev/shm` of 64 KiB that is full.
    FullSharedMemory,
    /// With monotonic clocks that are a century ahead.
    FarFuture,
}

/// Goes there. `Some` is a command that runs this program there, instead of which this process must not go on. To be called before any thread is started.
///
/// # Errors
/// [`Stop::Skip`] where the kernel does not let us.
pub fn go(place: Place) -> Result<Option<Command>, Stop> {
    match place {
        Place::Here => Ok(None),
        Place::FullSharedMemory => {
            fill_shared_memory().map(|()| None).map_err(|error| refused("a mount namespace", &error))
        }
        Place::FarFuture if std::env::var_os(THERE).is_some() => Ok(None),
        Place::FarFuture => far_future().map(Some),
    }
}

fn refused(what: &str, error: &std::io::Error) -> Stop {
    Stop::Skip(format!("{what} is refused: {error}"))
}

fn fill_shared_memory() -> std::io::Result<()> {
    let nothing = None::<&str>;
    if let Err(error) = enter(Namespace::Mount) {
        // An ordinary user may, with users of his own.
        let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
        enter(Namespace::User).map_err(|_| error)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
        enter(Namespace::Mount)?;
    }
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some("none"), SHARED_MEMORY, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
    match fs::write(Path::new(SHARED_MEMORY).join("full"), vec![1; 1 << 20]) {
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(std::io::Error::other("a file system of 64 KiB took 1 MiB")),
    }
}

/// The clocks of a process cannot be moved, those of its children can: `unshare(1)` starts one.
fn far_future() -> Result<Command, Stop> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args([
            "--time",
            "--monotonic",
            AHEAD_SECONDS,
            "--boottime",
            AHEAD_SECONDS,
            "--fork",
            "--kill-child",
        ]);
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command
    };
    let output = unshare().arg("/bin/true").stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Stop::Skip(format!("a time namespace is refused: {said}")));
        }
        Err(error) => return Err(refused("unshare(1)", &error)),
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut command = unshare();
    command.arg(std::env::current_exe()?).args(arguments).env(THERE, "1");
    Ok(command)
}
