//! The runtime's side of the contract with modules: what a function reaches through [`Runtime`].
//!
//! A host call works only on what belongs to the running call (its arena, its response), so a call may be ended inside one.
//! The state is reached through a static, since a module's allocator has no other argument.
#![expect(unsafe_code, reason = "entered from modules through a C ABI")]

use std::ffi::c_int;
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use microfaas_abi::{ABI_VERSION, Call, MESSAGE_BYTES, Runtime};
use microfaas_preempt::leave;

use crate::arena::Arena;

/// Code of [`leave`] for a call that used up its arena.
pub const LEFT_OOM: u32 = 1;
/// Code of [`leave`] for a response over the limit.
pub const LEFT_TOO_LARGE: u32 = 2;

/// A call's response while it is made.
#[repr(C)]
#[derive(Debug)]
pub struct Response {
    /// The call as its function sees it.
    pub call: Call,
    /// The slot's overflow buffer.
    pub overflow: (NonNull<u8>, usize),
    /// Whether the response has moved there.
    pub overflowed: bool,
    /// Whether the call was told to end at a safe point.
    pub told_to_end: bool,
}

const _: () = assert!(std::mem::offset_of!(Response, call) == 0, "`choose` relies on it");

impl Default for Response {
    fn default() -> Self {
        let call = Call {
            body: null(),
            body_len: 0,
            meta: null(),
            meta_len: 0,
            out: null_mut(),
            out_capacity: 0,
            out_body_len: 0,
            out_meta_len: 0,
            deadline_ns: u64::MAX,
            flags: 0,
        };
        Self { call, overflow: (NonNull::dangling(), 0), overflowed: false, told_to_end: false }
    }
}

/// What host calls work on. One for each worker, in a box that is never freed.
#[derive(Debug)]
pub struct State {
    /// What modules see. First, so that it stays on its own lines.
    pub runtime: Runtime,
    /// The response of the call that runs.
    response: *mut Response,
    /// The arena that allocations come from.
    arena: *mut Arena,
    /// The error number of the worker's one thread. To ask the C library for its place takes 4 ns.
    errno: NonNull<c_int>,
}

static STATE: AtomicPtr<State> = AtomicPtr::new(null_mut());

impl State {
    /// Makes the state of this worker's host calls, on the thread that runs the calls. It lives for ever; between calls the worker alone uses it, during a call host calls do.
    #[must_use]
    pub fn install() -> NonNull<Self> {
        let runtime = Runtime {
            abi_version: ABI_VERSION,
            pending: AtomicU32::new(0),
            call: null_mut(),
            alloc,
            dealloc,
            realloc,
            reserve,
            checkpoint,
            message_len: 0,
            reserved: 0,
            message: [0; MESSAGE_BYTES],
            worker: null_mut(),
        };
        // SAFETY: no more than asks for a pointer.
        let errno =
            NonNull::new(unsafe { libc::__errno_location() }).expect("each thread has an error number");
        let state = Self { runtime, response: null_mut(), arena: null_mut(), errno };
        let state = NonNull::from(Box::leak(Box::new(state)));
        STATE.store(state.as_ptr(), Ordering::Relaxed);
        state
    }

    /// Chooses what host calls work on next. `response` may be null where no call runs but `attach` or `init`.
    ///
    /// Takes a pointer, as those do that go on to run a call: a reference among their arguments would promise the compiler that nobody else touches
    /// the state until they return, while host calls do.
    ///
    /// # Safety
    /// No call runs. Both are used by nobody else until others are chosen, and not moved or dropped before.
    #[inline]
    pub unsafe fn choose(mut state: NonNull<Self>, arena: *mut Arena, response: *mut Response) {
        // SAFETY: the state lives for ever, and is the worker's alone while no call runs.
        let state = unsafe { state.as_mut() };
        state.arena = arena;
        state.response = response;
        // The call is the response's first field.
        state.runtime.call = response.cast();
    }

    /// As [`choose`](Self::choose), for a call that begins: the text and the error number that an earlier one has left are not for it to find.
    ///
    /// # Safety
    /// As for `choose`, on the thread that has [installed](Self::install) the state.
    #[inline]
    pub unsafe fn begin(mut state: NonNull<Self>, arena: *mut Arena, response: *mut Response) {
        // SAFETY: the caller's promise.
        unsafe { Self::choose(state, arena, response) };
        // SAFETY: as in `choose`.
        let state = unsafe { state.as_mut() };
        state.runtime.message_len = 0;
        // SAFETY: this thread's, by the caller's promise, and there as long as the thread is.
        if unsafe { state.errno.read() } != 0 {
            // SAFETY: as above.
            unsafe { state.errno.write(0) };
        }
    }

    /// The text that the module left, cut to what can be text.
    #[must_use]
    pub fn message(&self) -> &str {
        let len = (self.runtime.message_len as usize).min(MESSAGE_BYTES);
        let bytes = &self.runtime.message[..len];
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        }
    }

    /// Puts a message back as a call had it when it was suspended, whatever it was about to do with it.
    pub fn set_message(&mut self, bytes: &[u8], len: u32) {
        let kept = bytes.len().min(MESSAGE_BYTES);
        self.runtime.message[..kept].copy_from_slice(&bytes[..kept]);
        self.runtime.message_len = len;
    }
}

/// The running call's arena.
///
/// # Safety
/// Called from a host call: `install` and `choose` came before, and one host call runs at a time.
unsafe fn arena<'a>() -> &'a mut Arena {
    // SAFETY: `install` has stored a state that lives for ever; the worker does not touch it while a call runs.
    let state = unsafe { &mut *STATE.load(Ordering::Relaxed) };
    // SAFETY: `choose` has stored a valid arena.
    unsafe { &mut *state.arena }
}

unsafe extern "C" fn alloc(size: usize, align: usize, zeroed: u32) -> *mut u8 {
    // SAFETY: in a host call.
    let block = unsafe { arena() }.alloc(size, align, zeroed != 0);
    if block.is_null() {
        // SAFETY: on the call's stack.
        unsafe { leave(LEFT_OOM) }
    }
    block
}

unsafe extern "C" fn dealloc(block: *mut u8, size: usize, _align: usize) {
    // SAFETY: in a host call.
    let arena = unsafe { arena() };
    // SAFETY: the module's promise, which is its allocator's contract.
    unsafe { arena.dealloc(block, size) };
}

unsafe extern "C" fn realloc(block: *mut u8, old: usize, align: usize, new: usize) -> *mut u8 {
    // SAFETY: in a host call.
    let arena = unsafe { arena() };
    // SAFETY: the module's promise, which is its allocator's contract.
    let moved = unsafe { arena.realloc(block, old, align, new) };
    if moved.is_null() {
        // SAFETY: on the call's stack.
        unsafe { leave(LEFT_OOM) }
    }
    moved
}

/// The running call's response.
///
/// # Safety
/// As for [`arena`]; `None` in `attach` and `init`.
unsafe fn response<'a>() -> Option<&'a mut Response> {
    // SAFETY: `install` has stored a state that lives for ever; the worker does not touch it while a call runs.
    let state = unsafe { &mut *STATE.load(Ordering::Relaxed) };
    // SAFETY: `choose` has stored a valid response, or null.
    unsafe { state.response.as_mut() }
}

unsafe extern "C" fn reserve(total: usize) {
    // SAFETY: in a host call.
    let Some(response) = (unsafe { response() }) else { return };
    if total <= response.call.out_capacity {
        return;
    }
    let (buffer, capacity) = response.overflow;
    if response.overflowed || total > capacity {
        // SAFETY: on the call's stack.
        unsafe { leave(LEFT_TOO_LARGE) }
    }
    let written = response.call.out_body_len.min(response.call.out_capacity);
    // SAFETY: both buffers are the slot's own, disjoint, and hold `written` bytes: `capacity >= total > out_capacity`.
    unsafe { buffer.as_ptr().copy_from_nonoverlapping(response.call.out, written) };
    response.call.out = buffer.as_ptr();
    response.call.out_capacity = capacity;
    response.overflowed = true;
}

unsafe extern "C" fn checkpoint() -> u32 {
    // SAFETY: `install` has stored a state that lives for ever; an atomic may be read at any time.
    let pending = unsafe { &*STATE.load(Ordering::Relaxed) }.runtime.pending.load(Ordering::Relaxed);
    // SAFETY: in a host call.
    if let Some(response) = unsafe { response() } {
        response.told_to_end |= pending != 0;
    }
    pending
}
