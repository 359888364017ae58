//! What a signal handler has to know of the call that runs. Static, because a handler has no other argument.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The worker's stack pointer while a call runs, 0 while none does. Set on the way in, cleared on the way out, by the same thread
/// that the handlers run on; so a handler that finds it non-zero has interrupted a call and may end it.
pub(crate) static WORKER_SP: AtomicUsize = AtomicUsize::new(0);

/// Lowest address of the guard, lowest usable address, and one past the highest, of the stack that the call runs on.
pub(crate) static STACK: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// Values that `switch` hands back in its upper half.
pub(crate) const RETURNED: u64 = 0;
pub(crate) const LEFT: u64 = 1 << 32;
pub(crate) const FAULTED: u64 = 2 << 32;

/// Whether `address` lies in the running call's guard.
pub(crate) fn in_guard(address: usize) -> bool {
    (STACK[0].load(Ordering::Relaxed)..STACK[1].load(Ordering::Relaxed)).contains(&address)
}
