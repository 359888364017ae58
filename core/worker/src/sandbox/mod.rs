//! The worker seals itself in: after its first lane is mapped, before the first code of a module runs. The steps are those of
//! [`microfaas_sandbox::enter`]; here is when, with what, and what a forbidden system call means for its caller.
#![expect(unsafe_code, reason = "seals the process")]

pub mod loading;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, RawFd};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use microfaas_control::ToNode;
use microfaas_control::sandbox::{SandboxPolicy, SandboxReport};
use microfaas_preempt::contain::{self, Fault};
use microfaas_sandbox::{DeniedCall, Keep, enter};

use crate::control::{Control, Voice};
use crate::descriptor::Received;
use crate::lanes::Lanes;

/// Libraries that a module may need beside those that the worker itself is linked with. Afterwards none can be loaded any more.
const LIBRARIES: [&str; 1] = ["libm.so.6"];

/// See the module.
#[derive(Debug)]
pub struct Sandbox {
    policy: SandboxPolicy,
    node_pid: u32,
    report: Option<SandboxReport>,
}

impl Sandbox {
    /// Not entered yet.
    #[must_use]
    pub fn new(policy: SandboxPolicy, node_pid: u32) -> Self {
        Self { policy, node_pid, report: None }
    }

    /// Enters it, with the namespaces that the node has made, if it has. Where it is off, says so on standard error.
    ///
    /// # Errors
    /// Where a mandatory layer is refused, or it has been entered.
    pub fn seal(&mut self, control: &Control, lanes: &Lanes, namespaces: Vec<Received>) -> io::Result<()> {
        if self.report.is_some() {
            return Err(io::Error::other("the node sent `seal` twice"));
        }
        if !self.policy.enabled {
            eprintln!(
                "warning: worker {}: THE SANDBOX IS OFF: functions can do whatever this user can",
                std::process::id()
            );
            self.report = Some(SandboxReport::default());
            return Ok(());
        }
        for name in LIBRARIES {
            // SAFETY: runs the initialisers of a system library.
            let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) };
            std::mem::forget(library.map_err(io::Error::other)?);
        }
        report_panics(control.voice());
        let voice = control.voice();
        let events: Vec<BorrowedFd<'_>> = lanes.iter().map(|lane| lane.event.as_fd()).collect();
        // They are closed when they have been joined.
        let namespaces: Vec<RawFd> = namespaces.into_iter().map(IntoRawFd::into_raw_fd).collect();
        let keep = Keep {
            control: voice.as_fd(),
            events: &events,
            module: None,
            namespaces: &namespaces,
            node_pid: self.node_pid,
        };
        // SAFETY: the worker has no descriptors but those that it keeps: a lane's regions are closed once they are mapped.
        let sealed = unsafe { enter(&self.policy, &keep) }.map_err(io::Error::other)?;
        loading::seal(sealed.module_fd);
        self.report = Some(sealed.report);
        Ok(())
    }

    /// What is in force.
    ///
    /// # Errors
    /// Where it has not been entered.
    pub fn report(&self) -> io::Result<&SandboxReport> {
        self.report.as_ref().ok_or_else(|| io::Error::other("the node did not send `seal` first"))
    }
}

/// Standard error is gone then: a panic of the worker itself goes to the node.
fn report_panics(voice: Voice) {
    std::panic::set_hook(Box::new(move |info| {
        let _ = voice.say(&ToNode::Fatal { reason: info.to_string().replace('\n', " ") });
    }));
}

/// Whether a fault shows that the function ran code that no compiler made, or wrote where it may not: nothing in the process can be
/// trusted any more. A forbidden system call alone does not, if safe code can make it.
#[must_use]
pub fn betrays(fault: Fault) -> bool {
    fault.breaks_memory_safety() || fault == Fault::SystemCall && !denied_call().may_be_safe_code()
}

/// The system call that the last SIGSYS was about.
#[must_use]
pub fn denied_call() -> DeniedCall {
    let (number, architecture) = contain::last_system_call();
    DeniedCall { number, architecture }
}
