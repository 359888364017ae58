//! The worker process: one thread on one core that serves lanes, loads modules and runs calls.
//!
//! `main` hands the control socket to [`serve`](serve::serve). The life of a call: [`serve`] finds a submission, lets it wait in the [`backlog`] where others come first, and claims it; [`schedule`] runs the
//! function in a [`context`] (stack, arena, response), suspends and resumes it; [`execute`] makes its end a completion; then [`instance`] and
//! context are reset. A call that does not return (out of memory, a fault, its budget spent) takes the same way back.
//!
//! **Architecture Invariant:** after set-up, serving a call allocates nothing, takes no lock and makes no system call, but
//! for waking a host that sleeps and giving back memory that a call used beyond what is kept.

pub mod arena;
pub mod backlog;
pub mod cold;
pub mod context;
pub mod control;
pub mod descriptor;
pub mod execute;
pub mod function;
pub mod host_calls;
pub mod idle;
pub mod instance;
pub mod kept;
pub mod lanes;
pub mod loader;
pub mod modules;
pub mod private;
pub mod queues;
pub mod sandbox;
pub mod schedule;
pub mod serve;
pub mod thread_locals;
pub mod turns;
