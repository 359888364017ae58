//! Where an experiment's process has to run: some need a view of the system of their own, which is entered before there is a second thread.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use microfaas_node::{WORKER_PROGRAM, WORKER_VARIABLE};
use microfaas_sys::namespaces::{Namespace, enter};
use nix::mount::{MsFlags, mount};

use tempfile::TempDir;

use crate::modules::SHIM;
use crate::trial::Stop;

/// Set for the process that is where it has to be.
const THERE: &str = "MICROFAAS_CHAOS_THERE";
/// Whom every system has, and who owns nothing.
const NOBODY: u32 = 65_534;
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
    /// The same, or as it was started where the kernel does not let us.
    FullSharedMemoryWherePossible,
    /// With monotonic clocks that are a century ahead.
    FarFuture,
    /// With a wall clock that jumps all the time.
    JumpingWallClock,
    /// Under a user who may do nothing in particular.
    OrdinaryUser,
}

/// How to run this program in its place.
#[derive(Debug)]
pub struct There {
    /// To be waited for.
    pub command: Command,
    /// What it needs there.
    _folder: Option<TempDir>,
}

impl From<Command> for There {
    fn from(command: Command) -> Self {
        Self { command, _folder: None }
    }
}

/// Goes there. `Some` is a command that runs this program there, instead of which this process must not go on. To be called before any thread is started. `modules`: their folder.
///
/// # Errors
/// [`Stop::Skip`] where the kernel does not let us.
pub fn go(place: Place, modules: &Path) -> Result<Option<There>, Stop> {
    match place {
        Place::Here => Ok(None),
        Place::OrdinaryUser if !nix::unistd::geteuid().is_root() => Ok(None),
        Place::FullSharedMemory => {
            fill_shared_memory().map(|()| None).map_err(|error| refused("a mount namespace", &error))
        }
        Place::FullSharedMemoryWherePossible => {
            // What it says is not what is looked for there.
            let _ = fill_shared_memory();
            Ok(None)
        }
        _ if std::env::var_os(THERE).is_some() => Ok(None),
        Place::FarFuture => far_future().map(|command| Some(command.into())),
        Place::JumpingWallClock => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(std::env::args_os().skip(1)).env(THERE, "1").env("LD_PRELOAD", modules.join(SHIM));
            Ok(Some(command.into()))
        }
        Place::OrdinaryUser => ordinary_user(modules).map(Some),
    }
}

/// What it needs lies where only root may look, so it is put into a folder that everybody may read.
fn ordinary_user(modules: &Path) -> Result<There, Stop> {
    let folder = tempfile::tempdir()?;
    let readable = || fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), readable())?;
    let lay = |file: &Path, to: &Path| {
        fs::copy(file, to)?;
        fs::set_permissions(to, readable())
    };
    let this = std::env::current_exe()?;
    let worker = std::env::var_os(WORKER_VARIABLE).map(PathBuf::from);
    let worker = worker.unwrap_or_else(|| this.with_file_name(WORKER_PROGRAM));
    let [program, its_worker, its_modules] =
        ["chaos", WORKER_PROGRAM, "modules"].map(|name| folder.path().join(name));
    lay(&this, &program)?;
    lay(&worker, &its_worker)?;
    fs::create_dir(&its_modules)?;
    fs::set_permissions(&its_modules, readable())?;
    for file in fs::read_dir(modules)? {
        let file = file?;
        lay(&file.path(), &its_modules.join(file.file_name()))?;
    }
    let mut command = Command::new(program);
    for argument in std::env::args_os().skip(1) {
        command.arg(if argument == modules.as_os_str() { its_modules.as_os_str() } else { &argument });
    }
    command.env(THERE, "1").env(WORKER_VARIABLE, its_worker).uid(NOBODY).gid(NOBODY).current_dir("/");
    Ok(There { command, _folder: Some(folder) })
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
