//! What a worker gives up before the first code of a function runs in it.
//!
//! [`enter`] takes the steps in the one order that works, and reports what came of each: the kernel may refuse some of them (no unprivileged user
//! namespaces, an old Landlock), and nothing is skipped in silence. A layer that is mandatory and refused is an error, and the worker does not start.
//!
//! | step | why here |
//! | --- | --- |
//! | no new privileges | Landlock and the filter ask for it |
//! | descriptors | before the limit on them, which is their exact number |
//! | namespaces with an empty root: those of the node, or else some of its own | need the capabilities that go next; an ordinary user gets them with the user namespace |
//! | identity, capabilities | nothing below needs them |
//! | not dumpable, death signal | a change of identity undoes both |
//! | Landlock, limits, write xor execute | cannot be undone by what follows; Landlock needs a descriptor for a moment |
//! | system calls | last: none of the calls above is on the list |
//!
//! A process id namespace is missing: a process cannot enter one itself. Landlock's scopes and the filter keep a worker from signalling others.
#![expect(unsafe_code, reason = "closes descriptors that it does not own")]

mod error;
mod filter;
mod probe;
pub mod rules;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use microfaas_control::CONTROL_FD;
use microfaas_control::sandbox::{Layer, LayerReport, LayerState, SandboxPolicy, SandboxReport};
use microfaas_sys::landlock;
use microfaas_sys::namespaces::{self, Namespace};
use microfaas_sys::privileges::{self, Limit};

pub use error::SandboxError;
pub use filter::DeniedCall;
pub use probe::probe;

/// What stays in a worker's hands.
#[derive(Debug, Clone, Copy)]
pub struct Keep<'a> {
    /// The socket to the node; its number is `microfaas_control::CONTROL_FD`.
    pub control: BorrowedFd<'a>,
    /// The hosts' eventfds; their numbers are among [`rules::EVENTS`].
    pub events: &'a [BorrowedFd<'a>],
    /// A module that has been received already; it gets the number [`Sealed::module_fd`].
    pub module: Option<BorrowedFd<'a>>,
    /// Those of [`namespaces::Shared`], to be joined; closed then. Where there are none, or they cannot be joined, it enters some of its own.
    pub namespaces: &'a [RawFd],
    /// Process id of the node, which must be the parent.
    pub node_pid: u32,
}

/// The result of [`enter`].
#[derive(Debug)]
pub struct Sealed {
    /// What is in force.
    pub report: SandboxReport,
    /// The number that the first descriptor of the next packet will have, and the only one that can be mapped executable: [`rules::RECEIVED`].
    pub module_fd: RawFd,
}

/// Gives everything up, for ever. The process must have one thread, and handlers for SIGSYS where it means to survive a forbidden call.
/// Standard input, output and error become `/dev/null`, and every descriptor that is not in `keep` is closed; a module in `keep` is moved.
///
/// # Errors
/// [`SandboxError`], where a mandatory layer is refused or the node is gone. The process is then neither free nor sealed: end it.
///
/// # Safety
/// No descriptor above 2 that is not in `keep` is used or closed any more, and neither are the namespaces, nor the module by its old number.
///
/// # Cost
/// A tenth of a millisecond; with namespaces of its own one more, and tens of them on a machine where many do so.
pub unsafe fn enter(policy: &SandboxPolicy, keep: &Keep<'_>) -> Result<Sealed, SandboxError> {
    let mut steps = Steps::default();
    // While `/proc` can be asked, which the empty root does not have.
    let is_root = privileges::is_root();
    steps.take(Layer::NoNewPrivileges, privileges::set_no_new_privileges())?;
    // SAFETY: the caller's promise.
    let closed = unsafe { close_descriptors(keep) };
    steps.take(Layer::Descriptors, closed)?;
    // SAFETY: the caller's promise.
    let joined = unsafe { join_namespaces(keep) };
    enter_namespaces(&mut steps, is_root, joined)?;
    change_identity(policy, is_root, &mut steps)?;
    steps.take(Layer::NotDumpable, privileges::set_not_dumpable())?;
    steps.take(Layer::DeathSignal, arm_death_signal(keep.node_pid))?;
    // Before the limits: it needs a descriptor for a moment.
    steps.take(Layer::Landlock, landlock::deny_all())?;
    steps.take(Layer::Limits, set_limits())?;
    match policy.data_bytes_max {
        Some(most) => {
            steps.take(Layer::DataLimit, privileges::limit(Limit::Data, most))?;
        }
        None => steps.leave(Layer::DataLimit, "no limit is set"),
    }
    steps.take(Layer::WriteXorExecute, privileges::deny_write_execute())?;
    let numbers = filter::Numbers {
        process: std::process::id(),
        thread: nix::unistd::gettid().as_raw().cast_unsigned(),
    };
    steps.take(Layer::SystemCalls, filter::load(numbers).map_err(io::Error::other))?;
    Ok(Sealed { report: steps.report, module_fd: rules::RECEIVED })
}

/// The report as it grows.
#[derive(Debug, Default)]
struct Steps {
    report: SandboxReport,
}

impl Steps {
    /// Notes what came of a layer. The value, if it is in force.
    fn take<T>(&mut self, layer: Layer, result: io::Result<T>) -> Result<Option<T>, SandboxError> {
        match result {
            Ok(value) => {
                self.note(layer, LayerState::Active);
                Ok(Some(value))
            }
            Err(error) if layer.is_mandatory() => Err(SandboxError { layer, error }),
            Err(error) => {
                self.note(layer, LayerState::Refused(error.to_string()));
                Ok(None)
            }
        }
    }

    fn leave(&mut self, layer: Layer, reason: &str) {
        self.note(layer, LayerState::NotAsked(reason.to_owned()));
    }

    fn note(&mut self, layer: Layer, state: LayerState) {
        self.report.entries.push(LayerReport { layer, state });
    }
}

/// Leaves what is to be kept and three times `/dev/null`. Afterwards [`rules::RECEIVED`] is the lowest number that is free, but for a module there.
///
/// # Safety
/// As [`enter`].
unsafe fn close_descriptors(keep: &Keep<'_>) -> io::Result<()> {
    let events = rules::EVENTS..rules::EVENTS + rules::EVENTS_MAX.cast_signed();
    if keep.control.as_raw_fd() != CONTROL_FD
        || !keep.events.iter().all(|fd| events.contains(&fd.as_raw_fd()))
    {
        return Err(io::Error::other("a descriptor does not have the number that the filter knows it by"));
    }
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    drop(null);
    let mut kept: Vec<RawFd> = keep.events.iter().map(AsRawFd::as_raw_fd).collect();
    kept.push(CONTROL_FD);
    kept.extend(keep.namespaces);
    if let Some(module) = keep.module {
        if module.as_raw_fd() != rules::RECEIVED {
            // SAFETY: what had the number is closed, which the caller knows of.
            nix::errno::Errno::result(unsafe { libc::dup2(module.as_raw_fd(), rules::RECEIVED) })?;
        }
        kept.push(rules::RECEIVED);
    }
    // SAFETY: the caller's promise.
    unsafe { privileges::close_all_but(&kept) }
}

/// Joins the namespaces that others have made, if there are any, and closes their descriptors. False where it is not in all of them.
///
/// # Safety
/// As [`enter`].
unsafe fn join_namespaces(keep: &Keep<'_>) -> bool {
    // SAFETY: open until they are closed below, by the caller's promise.
    let borrow = |number: &RawFd| unsafe { BorrowedFd::borrow_raw(*number) };
    let all: Vec<BorrowedFd<'_>> = keep.namespaces.iter().map(borrow).collect();
    let joined = namespaces::Shared::join(&all).is_ok();
    for number in keep.namespaces {
        // SAFETY: the caller's promise.
        unsafe { libc::close(*number) };
    }
    joined
}

fn enter_namespaces(steps: &mut Steps, is_root: bool, joined: bool) -> Result<(), SandboxError> {
    if joined {
        if is_root {
            steps.leave(Layer::UserNamespace, "not needed by root");
        } else {
            steps.note(Layer::UserNamespace, LayerState::Active);
        }
        for layer in [
            Layer::NetNamespace,
            Layer::IpcNamespace,
            Layer::UtsNamespace,
            Layer::CgroupNamespace,
            Layer::MountNamespace,
            Layer::EmptyRoot,
        ] {
            steps.note(layer, LayerState::Active);
        }
        return Ok(());
    }
    if is_root {
        steps.leave(Layer::UserNamespace, "not needed by root");
    } else {
        steps.take(Layer::UserNamespace, namespaces::enter(Namespace::User))?;
    }
    for (layer, kind) in [
        (Layer::NetNamespace, Namespace::Net),
        (Layer::IpcNamespace, Namespace::Ipc),
        (Layer::UtsNamespace, Namespace::Uts),
        (Layer::CgroupNamespace, Namespace::Cgroup),
    ] {
        steps.take(layer, namespaces::enter(kind))?;
    }
    // The root is emptied in a namespace of its own, or not at all.
    if steps.take(Layer::MountNamespace, namespaces::enter(Namespace::Mount))?.is_some() {
        steps.take(Layer::EmptyRoot, namespaces::empty_root())?;
    } else {
        steps.leave(Layer::EmptyRoot, "no mount namespace");
    }
    Ok(())
}

fn change_identity(policy: &SandboxPolicy, is_root: bool, steps: &mut Steps) -> Result<(), SandboxError> {
    if is_root {
        // Before the user changes, as that takes the right to do it away.
        let bounding = privileges::empty_bounding_set();
        steps.take(Layer::Identity, privileges::become_user(policy.uid, policy.gid))?;
        steps.take(Layer::Capabilities, bounding.and_then(|()| privileges::drop_capabilities()))?;
        return Ok(());
    }
    steps.leave(Layer::Identity, "the node's user is unprivileged");
    // Only what the user namespace gave can be there, and not to be able to empty the set is to have nothing that it would give.
    let _ = privileges::empty_bounding_set();
    steps.take(Layer::Capabilities, privileges::drop_capabilities())?;
    Ok(())
}

/// The signal goes out when the parent ends; a parent that ended before it was armed shows in `getppid`.
fn arm_death_signal(node_pid: u32) -> io::Result<()> {
    privileges::set_death_signal()?;
    if std::os::unix::process::parent_id() == node_pid {
        Ok(())
    } else {
        Err(io::Error::other("the node is gone"))
    }
}

fn set_limits() -> io::Result<()> {
    // The numbers that the filter knows, and none above.
    let open_files = u64::from(rules::EVENTS.cast_unsigned() + rules::EVENTS_MAX);
    for (what, most) in [
        (Limit::Core, 0),
        (Limit::FileSize, 0),
        (Limit::LockedMemory, 0),
        (Limit::MessageQueues, 0),
        (Limit::OpenFiles, open_files),
        (Limit::Processes, 0),
        (Limit::RealTimePriority, 0),
    ] {
        privileges::limit(what, most)?;
    }
    Ok(())
}
