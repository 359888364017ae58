//! Runs a call on a stack of its own, and ends it from outside.
//!
//! [`run`] enters a call: it switches to the call's [`Stack`] and runs an entry there. The call leaves by
//! returning, by [`leave`] from anywhere below the entry (a host call that must not go on), or because a signal handler of
//! [`contain`] ends it. All three arrive at the same place in the worker with the same registers; in the last two nothing of the call's stack is unwound: the
//! worker drops the stack's contents, the arena and the instance's state as one.
//!
//! A call that passes its limit ([`timer`]) is suspended: all its registers are saved on its own stack, and it goes on when the worker
//! [`resume`]s it, or never. `docs/preemption.md` goes through every race.
//!
//! One thread of a process uses this crate: the state that signal handlers need is static.

mod alarms;
pub mod contain;
mod frame;
mod handlers;
pub mod poke;
mod stack;
mod switch;
pub mod timer;

pub use stack::{GUARD_BYTES, STACK_BYTES_MAX, STACK_BYTES_MIN, Stack, StackError};
pub use switch::{Entry, Suspended, leave, resume, run};

/// How a call came back to the worker.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    /// The entry returned this.
    Returned(u32),
    /// Something ended the call: a host call with its own code, or a fault.
    Ended(Ending),
    /// The limit passed; the call waits on its stack to be resumed or given up.
    Suspended(Suspended),
}

/// Why a call was ended without returning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A host call decided; the code is the caller's of [`leave`].
    HostCall(u32),
    /// A signal of the processor or the C library.
    Fault(contain::Fault),
}
