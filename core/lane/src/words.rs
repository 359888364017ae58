//! The control words of the two sides, one cache line each, each with one writer.

use crate::doorbell::{Bell, Epoch};
use crate::sync::AtomicU32;

/// In the down region: written by the host.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct HostWords {
    /// The worker sleeps on this one; the host rings it.
    pub worker_bell: Bell,
    /// Odd while a thread of the host sleeps on [`WorkerWords::host_bell`].
    pub futex_epoch: Epoch,
    /// Odd while the host's event loop sleeps on the lane's eventfd.
    pub event_epoch: Epoch,
    /// Moves when a packet waits on the control socket.
    pub control: Count,
    /// The core that last submitted, plus one; 0 where not known. Tells the worker whether spinning can help.
    pub host_cpu: Count,
    reserved: [Count; 11],
}

/// In the up region: written by the worker, except for the call states in the slots.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct WorkerWords {
    /// Odd while the worker sleeps on [`HostWords::worker_bell`], or has given a call a long slice: see [`Wish`](crate::doorbell::Wish).
    pub worker_epoch: Epoch,
    /// Threads of the host sleep on this one; the worker rings it.
    pub host_bell: Bell,
    /// The core that the worker runs on, plus one; 0 where not known.
    pub worker_cpu: Count,
    reserved: [Count; 13],
}

const _: () = assert!(size_of::<HostWords>() == 64);
const _: () = assert!(size_of::<WorkerWords>() == 64);

/// A plain shared number.
#[repr(transparent)]
#[derive(Debug)]
pub struct Count(pub AtomicU32);

impl Default for Count {
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}
