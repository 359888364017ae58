//! The worker process: one thread on one core that serves lanes, loads modules and runs calls.
//!
//! `main` hands the control socket to [`serve`](serve::serve). The life of a call: [`serve`] finds a submission, [`execute`] claims it and
//! runs the function on the call stack with the call arena, the answer goes into the slot, then the instance and the
//! arena are reset. A call that does not return (out of memory, a fault) takes the same way back.
//!
//! **Architecture Invariant:** after set-up, serving a call allocates nothing, takes no lock and makes no system call, but
//! for waking a host that sleeps and giving back memory that a call used beyond what is kept.

pub mod arena;
pub mod control;
pub mod execute;
pub mod host_calls;
pub mod idle;
pub mod instance;
pub mod kept;
pub mod loader;
pub mod serve;
