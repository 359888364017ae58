//! What a signal handler has to know of the call that runs. Static, because a handler has no other argument.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The worker's stack pointer while a call runs, 0 while none does. Set on the way in, cleared on the way out, by the same thread
/// that the handlers run on; so a handler that finds it non-zero has interrupted a call, or the few instructions on its way in or out. Above it lie the
/// control words of the floating point units, the thread pointer, and the registers that the worker wants back.
pub(crate) static WORKER_SP: AtomicUsize = AtomicUsize::new(0);

/// The call's stack pointer at the point where it was suspended, for the worker to keep.
pub(crate) static CALL_SP: AtomicUsize = AtomicUsize::new(0);

/// Lowest address of the guard, lowest usable address, and one past the highest, of the stack that the call runs on.
pub(crate) static STACK: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// Lowest address of that stack that can be touched without asking first; it falls when the call goes deeper.
pub(crate) static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Whether the processor's instruction that sets the thread pointer may be used.
pub(crate) static HAS_FSGSBASE: AtomicBool = AtomicBool::new(false);

/// The reading of the cycle counter from which on the call is to be suspended.
pub(crate) static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Bytes of the processor's extended state, rounded up to 64.
pub(crate) static XSAVE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Values that the switch hands back in its upper half.
pub(crate) const RETURNED: u64 = 0;
pub(crate) const LEFT: u64 = 1 << 32;
pub(crate) const FAULTED: u64 = 2 << 32;
pub(crate) const SUSPENDED: u64 = 3 << 32;

/// Whether `address` lies in the running call's guard.
pub(crate) fn in_guard(address: usize) -> bool {
    (STACK[0].load(Ordering::Relaxed)..STACK[1].load(Ordering::Relaxed)).contains(&address)
}

/// Bytes of the running call's stack below `sp`; `None` where `sp` is not on it.
pub(crate) fn room_below(sp: usize) -> Option<usize> {
    let (low, top) = (STACK[1].load(Ordering::Relaxed), STACK[2].load(Ordering::Relaxed));
    (low..=top).contains(&sp).then(|| sp - low)
}
