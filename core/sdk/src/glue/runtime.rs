//! The worker's services, as far as safe code may use them.
#![expect(unsafe_code, reason = "the runtime is reached through a pointer that the worker gives at attach")]

use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};
use std::panic::resume_unwind;

use microfaas_abi::{Call, MESSAGE_BYTES, Runtime};

/// Set once by [`attach`](super::entry::attach), before anything else of the module runs; null in a unit test.
///
/// Relaxed everywhere: it is written and read on the worker's only thread.
static RUNTIME: AtomicPtr<Runtime> = AtomicPtr::new(ptr::null_mut());

pub(crate) fn set(runtime: *mut Runtime) {
    RUNTIME.store(runtime, Ordering::Relaxed);
}

/// The worker's runtime; `None` outside a worker. It lives as long as the worker.
#[inline]
pub(crate) fn get() -> Option<NonNull<Runtime>> {
    NonNull::new(RUNTIME.load(Ordering::Relaxed))
}

/// The call that runs now; `None` outside a worker and while the module is being loaded.
#[inline]
pub(crate) fn current_call() -> Option<NonNull<Call>> {
    let runtime = get()?;
    // SAFETY: the pointer came from the worker at attach, and by the ABI stays valid for the worker's life;
    // `call` is written by the worker on this thread only.
    let call = unsafe { (*runtime.as_ptr()).call };
    NonNull::new(call)
}

/// The private payload of an unwinding that the worker asked for.
pub(crate) struct CallEnded;

/// A safe point: ends the call here, by unwinding, if the worker wants it to end.
///
/// Put it into loops that may run long: the function's destructors run then, while a call that must be stopped
/// elsewhere is dropped as it stands. The statics of a stateful function are as `init` left them after either. In a callback from C, through which nothing can unwind,
/// no destructors run. Outside a worker it does nothing.
///
/// The SDK's calls that take their time are safe points as well: [`Response::in_place`](crate::Response::in_place), whatever adds to a response, and
/// [`Request::time_left`](crate::Request::time_left).
///
/// # Cost
/// Two loads while nothing is pending.
#[inline]
pub fn checkpoint() {
    if let Some(runtime) = get() {
        // SAFETY: as in `current_call`; `pending` is an atomic.
        let pending = unsafe { &(*runtime.as_ptr()).pending };
        if pending.load(Ordering::Relaxed) != 0 {
            safe_point(runtime);
        }
    }
}

#[cold]
fn safe_point(runtime: NonNull<Runtime>) {
    // A second unwinding out of a destructor would abort.
    if std::thread::panicking() {
        return;
    }
    // SAFETY: as in `current_call`; the worker fills the table before it attaches a module.
    let checkpoint = unsafe { (*runtime.as_ptr()).checkpoint };
    // SAFETY: by the ABI it may be called at any time on the worker's thread, which this is.
    let end = unsafe { checkpoint() };
    if end != 0 {
        // A type without size: boxing it does not allocate. No hook runs.
        resume_unwind(Box::new(CallEnded));
    }
}

/// Now, in nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec that may be written.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    // The clock starts at boot and does not go below zero.
    let sec = u64::try_from(now.tv_sec).unwrap_or(0);
    let nsec = u64::try_from(now.tv_nsec).unwrap_or(0);
    sec.saturating_mul(1_000_000_000).saturating_add(nsec)
}

/// Writes text into the runtime's message, cut at a character boundary to what fits. Nothing outside a worker.
///
/// # Cost
/// No allocation.
pub(crate) fn set_message(text: fmt::Arguments<'_>) {
    let Some(runtime) = get() else { return };
    // SAFETY: as in `current_call`; nothing else uses the message while a module runs on this thread, and
    // formatting below can reach it only through this function, which is not called by `fmt` code of ours.
    let buffer = unsafe { &mut (*runtime.as_ptr()).message };
    let mut message = Message { buffer, len: 0 };
    // Fails when the text is cut, or when a `Display` of the author's does: keep what there is.
    let _ = fmt::write(&mut message, text);
    let len = u32::try_from(message.len).unwrap_or(0);
    // SAFETY: as above.
    unsafe { (*runtime.as_ptr()).message_len = len };
}

struct Message<'a> {
    buffer: &'a mut [u8; MESSAGE_BYTES],
    len: usize,
}

impl fmt::Write for Message<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.buffer.len() - self.len;
        let fits = (0..=room.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        self.buffer[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write as _;

    #[test]
    fn messages_are_cut_at_a_character() {
        let mut buffer = [0; MESSAGE_BYTES];
        let mut message = Message { buffer: &mut buffer, len: 0 };
        message.write_str(&"a".repeat(MESSAGE_BYTES - 1)).unwrap();
        assert!(message.write_str("äx").is_err());
        assert_eq!(message.len, MESSAGE_BYTES - 1);
        message.write_str("b").unwrap();
        assert_eq!(message.len, MESSAGE_BYTES);
    }

    #[test]
    fn outside_a_worker_a_checkpoint_does_nothing() {
        checkpoint();
        assert!(current_call().is_none());
    }
}
