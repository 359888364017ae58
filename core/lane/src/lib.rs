//! The shared memory between one host and one worker.
//!
//! A lane is three regions (see [`layout`]) with a fixed number of *slots*. A slot is one call's buffers; rings carry only slot numbers.
//! The host owns the slots: it takes a free one, writes the request in place and pushes a
//! *submission*; the worker reads the request in place, writes the response into the same slot and pushes a *completion*.
//! Each ring has at least as many entries as there are slots and a slot is free again only when its completion was read, so neither ring
//! can be full and neither side can be held up by the other.
//!
//! **The worker is hostile to the host.** All that the host reads from a region that the worker can write is
//! read once into private memory, checked there against the host's own records, and only then used; what cannot be true is
//! a [`Violation`], upon which the host cuts the lane and kills the worker. The worker trusts the host.
//!
//! This crate makes no system calls, allocates nothing and takes no locks. Whoever uses it brings the memory,
//! waits and wakes. `docs/protocol.md` is the protocol; `tests/model` checks [`ring`], [`state`] and [`doorbell`]
//! with loom.
//!
//! **Architecture Invariant:** nothing here depends on another crate of the workspace, and nothing calls the kernel.
#![no_std]
#![warn(clippy::std_instead_of_core, clippy::alloc_instead_of_core)]

#[cfg(any(test, loom))]
extern crate std;

pub mod doorbell;
pub mod layout;
pub mod message;
pub mod ring;
pub mod slots;
pub mod state;
pub mod status;
pub mod sync;

#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
pub mod host;
#[cfg(not(loom))]
mod prefetch;
#[cfg(not(loom))]
pub mod words;
#[cfg(not(loom))]
pub mod worker;

pub use status::{Status, Violation};
