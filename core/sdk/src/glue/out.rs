//! The response buffer of the current call, written in place.
#![expect(unsafe_code, reason = "the buffer is shared memory that the worker may move when it grows")]

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};

use microfaas_abi::{CALL_KEEPS_STATE, Call};

use super::runtime;

/// Whether an [`InPlace`] exists. Relaxed: one thread.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to write the current call's response buffer; at most one exists. Body bytes written so far are
/// counted in `Call::out_body_len`.
///
/// It refers to memory of the call, and hands out references that safe code can keep for ever by leaking it. So there is none in a call whose statics outlast it; elsewhere whatever was
/// kept is put back with all of the instance's memory.
#[derive(Debug)]
pub(crate) struct InPlace {
    call: NonNull<Call>,
    /// Stays on the worker's thread.
    thread: PhantomData<*mut ()>,
}

impl InPlace {
    /// `None` outside a call, in one that keeps state, and while another one exists.
    pub(crate) fn take() -> Option<Self> {
        let call = runtime::current_call()?;
        // SAFETY: the current call, and no other reference to it is alive.
        let flags = unsafe { call.as_ref() }.flags;
        if flags & CALL_KEEPS_STATE != 0 || TAKEN.swap(true, Ordering::Relaxed) {
            return None;
        }
        let mut out = Self { call, thread: PhantomData };
        out.set_len(0);
        Some(out)
    }

    /// Ends the right, keeping what was written.
    pub(crate) fn keep(self) {
        TAKEN.store(false, Ordering::Relaxed);
        core::mem::forget(self);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let (out, len) = self.parts();
        // SAFETY: `len` bytes were written by us and stay in place while `self` is borrowed: only `&mut self`
        // grows the buffer, and nothing else writes it.
        unsafe { slice::from_raw_parts(out, len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let (out, len) = self.parts();
        // SAFETY: as in `bytes`, and `self` is the only way to the buffer.
        unsafe { slice::from_raw_parts_mut(out, len) }
    }

    #[inline]
    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        let (_, len) = self.parts();
        let new_len = len.saturating_add(bytes.len());
        reserve(self.call, new_len);
        let (out, _) = self.parts();
        // SAFETY: `reserve` made the buffer hold `new_len` bytes, so the end of what is written is in bounds.
        let end = unsafe { out.add(len) };
        // SAFETY: `bytes.len()` bytes are in bounds there; `bytes` cannot be of this buffer, since `self` is
        // borrowed mutably.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len()) };
        self.set_len(new_len);
    }

    pub(crate) fn resize(&mut self, new_len: usize) {
        let (_, len) = self.parts();
        if new_len > len {
            reserve(self.call, new_len);
            let (out, _) = self.parts();
            // SAFETY: `reserve` made the buffer hold `new_len` bytes.
            let end = unsafe { out.add(len) };
            // SAFETY: `new_len - len` bytes are in bounds there.
            unsafe { end.write_bytes(0, new_len - len) };
        }
        self.set_len(new_len);
    }

    /// Start of the buffer, never null, and the bytes written.
    fn parts(&self) -> (*mut u8, usize) {
        // SAFETY: `call` is the current call: it was when `self` was made, and `self` does not outlast it (see there); it is on no other thread and in no other instance.
        let call = unsafe { self.call.as_ref() };
        let out = if call.out.is_null() { NonNull::dangling().as_ptr() } else { call.out };
        (out, call.out_body_len)
    }

    fn set_len(&mut self, len: usize) {
        // SAFETY: as in `parts`, which was called before or `self` has just been made; no other reference to the call is alive.
        unsafe { self.call.as_mut() }.out_body_len = len;
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        self.set_len(0);
        TAKEN.store(false, Ordering::Relaxed);
    }
}

/// Makes the call's buffer hold `total` bytes. Does not return when that is over the response limit.
#[inline]
pub(crate) fn reserve(call: NonNull<Call>, total: usize) {
    // SAFETY: `call` is the current call, and no reference into it is alive.
    let capacity = unsafe { (*call.as_ptr()).out_capacity };
    if total > capacity {
        grow(total);
    }
}

#[cold]
fn grow(total: usize) {
    // Without a runtime there is no call.
    let Some(runtime) = runtime::get() else { return };
    // SAFETY: the runtime is valid for the worker's life and its table is filled before attach.
    let reserve = unsafe { (*runtime.as_ptr()).reserve };
    // SAFETY: a call runs now, on this thread.
    unsafe { reserve(total) };
}
