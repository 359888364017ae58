//! One call as the attribute macro's code sees it.
#![expect(unsafe_code, reason = "a call is handed over as raw pointers")]

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::slice;

use microfaas_abi::{Call, OUTCOME_ERROR, OUTCOME_OK, Outcome};
use microfaas_lane::message::META_ALIGN;

use super::out;
use crate::Response;
use crate::inputs::IntoReply;
use crate::response::Body;

/// One call: its request, borrowed for `'a`, and the place for its response.
#[derive(Debug)]
pub struct Invocation<'a> {
    call: NonNull<Call>,
    request: PhantomData<&'a [u8]>,
}

impl<'a> Invocation<'a> {
    /// # Safety
    /// For all of `'a`: `call` points to a valid `Call` whose pointers are valid for their lengths, which nobody
    /// else writes but the worker's `reserve`, and whose request bytes do not change.
    pub(crate) unsafe fn new(call: NonNull<Call>) -> Self {
        Self { call, request: PhantomData }
    }

    pub(crate) fn body(&self) -> &'a [u8] {
        // SAFETY: by the contract of `new`; the reference ends with this function.
        let call = unsafe { self.call.as_ref() };
        // SAFETY: by the contract of `new`, they are readable and unchanging for `'a`.
        unsafe { bytes(call.body, call.body_len) }
    }

    pub(crate) fn meta(&self) -> &'a [u8] {
        // SAFETY: by the contract of `new`; the reference ends with this function.
        let call = unsafe { self.call.as_ref() };
        // SAFETY: by the contract of `new`, they are readable and unchanging for `'a`.
        unsafe { bytes(call.meta, call.meta_len) }
    }

    pub(crate) fn deadline_ns(&self) -> u64 {
        // SAFETY: by the contract of `new`.
        unsafe { (*self.call.as_ptr()).deadline_ns }
    }

    pub(crate) fn flags(&self) -> u64 {
        // SAFETY: by the contract of `new`.
        unsafe { (*self.call.as_ptr()).flags }
    }

    /// Hands the function's answer over to the worker.
    #[inline]
    pub fn finish(&self, reply: impl IntoReply) -> Outcome {
        let (outcome, response) = match reply.into_reply() {
            Ok(response) => (OUTCOME_OK, response),
            Err(response) => (OUTCOME_ERROR, response),
        };
        self.hand_over(response);
        outcome
    }

    fn hand_over(&self, mut response: Response) {
        let body_len = response.body().len();
        let meta_len = response.meta_len();
        let meta_start = if meta_len == 0 { body_len } else { body_len.next_multiple_of(META_ALIGN) };
        // Lengths of objects that exist, so their sum is far from overflowing.
        out::reserve(self.call, meta_start + meta_len);
        // SAFETY: by the contract of `new`; read after `reserve`, which may have moved it.
        let out = unsafe { (*self.call.as_ptr()).out };
        if !response.is_in_place() {
            let body = response.body();
            // It may lie in the slot itself, if it is a part of a response that was written in place and leaked.
            // SAFETY: `body` is readable, and `reserve` made `out` hold `meta_start + meta_len >= body_len` bytes.
            unsafe { ptr::copy(body.as_ptr(), out, body_len) };
        }
        if meta_len != 0 {
            // SAFETY: `out` holds `meta_start + meta_len` bytes.
            let padding = unsafe { out.add(body_len) };
            // SAFETY: `meta_start - body_len` bytes from there are in bounds.
            unsafe { padding.write_bytes(0, meta_start - body_len) };
            // SAFETY: in bounds, as above.
            let start = unsafe { out.add(meta_start) };
            // SAFETY: `meta_len` initialised bytes of shared memory that nothing else refers to: the body, if it is in
            // place, ends before them.
            response.encode_meta(unsafe { slice::from_raw_parts_mut(start, meta_len) });
        }
        if let Body::InPlace(out) = response.take_body() {
            out.keep();
        }
        // SAFETY: by the contract of `new`; no reference into the call is alive.
        let call = unsafe { &mut *self.call.as_ptr() };
        call.out_body_len = body_len;
        call.out_meta_len = meta_len;
    }
}

/// # Safety
/// `start` is readable for `len` bytes that do not change for `'a`; it may be anything where `len` is 0.
unsafe fn bytes<'a>(start: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(start, len) }
}
