//! The contract between a worker and a function module.
//!
//! A module is a shared library that exports one symbol, [`MODULE_SYMBOL`], a [`Module`]: a table of
//! functions and one `attach` entry. It also carries a [`manifest`] in an ELF note, so that the node can
//! list what a file holds without running any of its code.
//!
//! The worker gives each module a pointer to its one [`Runtime`] and passes each invocation a [`Call`]. All
//! of it is single-threaded: the worker, and so every field here, is touched by one thread only. What a
//! signal handler of that thread may touch is an atomic.
//!
//! Everything in this crate is `repr(C)` with fixed-width or pointer-width fields. A change of any layout or
//! meaning raises [`ABI_VERSION`], and a worker refuses a module of another version.
#![no_std]

pub mod manifest;

use core::ffi::c_void;
use core::sync::atomic::AtomicU32;

/// Version of everything in this crate. A worker loads only modules of exactly this version.
///
/// 2: [`CALL_KEEPS_STATE`], which a module of version 1 did not heed.
pub const ABI_VERSION: u32 = 2;

/// First field of a [`Module`]: `"mfaasmod"` in little-endian.
pub const MODULE_MAGIC: u64 = u64::from_le_bytes(*b"mfaasmod");

/// Name of the one symbol that a module exports; its type is [`Module`].
pub const MODULE_SYMBOL: &str = "microfaas_module";

/// Room for the text of a panic or of the function's own error; longer text is cut at a character boundary.
pub const MESSAGE_BYTES: usize = 1024;

/// Most bytes in a function's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Whether `name` may name a function: 1 to [`NAME_BYTES_MAX`] bytes of `a-z`, `0-9`, `-`, `_` and `.`,
/// starting with a letter or digit.
#[must_use]
pub const fn is_function_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > NAME_BYTES_MAX {
        return false;
    }
    if !(bytes[0].is_ascii_lowercase() || bytes[0].is_ascii_digit()) {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        let b = bytes[i];
        if !(b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_' || b == b'.') {
            return false;
        }
        i += 1;
    }
    true
}

/// How a function's entry ended. The worker treats any other value as [`OUTCOME_PANIC`].
pub type Outcome = u32;
/// The response in [`Call`] is the function's answer.
pub const OUTCOME_OK: Outcome = 0;
/// The function returned an error; the response in [`Call`] is what it has to say about it.
pub const OUTCOME_ERROR: Outcome = 1;
/// The function panicked and the panic was caught at the module's border; [`Runtime::message`] says why.
pub const OUTCOME_PANIC: Outcome = 2;

/// The table that a module exports as [`MODULE_SYMBOL`].
#[repr(C)]
#[derive(Debug)]
pub struct Module {
    /// [`MODULE_MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`] that the module was built for.
    pub abi_version: u32,
    /// Number of entries behind `functions`.
    pub function_count: u32,
    /// The functions, in the order of the manifest.
    pub functions: *const Function,
    /// Called once, before anything else, on the worker's thread: keeps the runtime pointer, installs a
    /// silent panic hook, touches thread-local storage so that the loader allocates it now. Must not fail.
    pub attach: unsafe extern "C" fn(runtime: *mut Runtime),
}

// SAFETY: a `Module` is immutable after the loader has relocated it; its pointers are to statics.
#[expect(unsafe_code, reason = "the table is exported as a static, which must be Sync")]
unsafe impl Sync for Module {}

/// One function of a module.
#[repr(C)]
#[derive(Debug)]
pub struct Function {
    /// UTF-8, not terminated, see [`is_function_name`].
    pub name: *const u8,
    /// Bytes behind `name`.
    pub name_len: usize,
    /// Builds the function's `init` state; called once after `attach`, with the instance's own arena
    /// current. `None` where the function has none. Returns [`OUTCOME_OK`], or [`OUTCOME_ERROR`] or
    /// [`OUTCOME_PANIC`] with [`Runtime::message`] set.
    pub init: Option<unsafe extern "C" fn() -> Outcome>,
    /// Runs one call.
    pub call: unsafe extern "C" fn(call: *mut Call) -> Outcome,
}

// SAFETY: as for `Module`.
#[expect(unsafe_code, reason = "the table is exported as a static, which must be Sync")]
unsafe impl Sync for Function {}

/// One invocation, as the function sees it. Lives in the worker for as long as the call runs.
#[repr(C)]
#[derive(Debug)]
pub struct Call {
    /// Request body; borrowed in place from the lane, read-only.
    pub body: *const u8,
    /// Bytes behind `body`.
    pub body_len: usize,
    /// Request metadata in the lane's encoding (`microfaas_lane::message`), read-only.
    pub meta: *const u8,
    /// Bytes behind `meta`.
    pub meta_len: usize,
    /// The response buffer. Body first, then, at the next multiple of 8, metadata.
    pub out: *mut u8,
    /// Bytes that may be written behind `out`; [`Runtime::reserve`] gives more.
    pub out_capacity: usize,
    /// Response body bytes written so far.
    pub out_body_len: usize,
    /// Response metadata bytes.
    pub out_meta_len: usize,
    /// When the caller stops caring, in nanoseconds of `CLOCK_MONOTONIC`; `u64::MAX` for never.
    pub deadline_ns: u64,
    /// Bit set of `CALL_*`.
    pub flags: u64,
}

/// In [`Call::flags`]: an earlier attempt at this call may have run (idempotent functions only).
pub const CALL_RETRIED: u64 = 1;
/// In [`Call::flags`]: what the module keeps in its statics outlasts this call, whose memory does not. So nothing that can be kept may refer to the response buffer.
pub const CALL_KEEPS_STATE: u64 = 2;

/// What the worker offers to modules; one for each worker, the same for all modules in it.
///
/// The function pointers are the runtime's host calls. Those marked *does not return* end the call at once,
/// without unwinding: the stack is dropped, the arena emptied, the instance reset.
#[repr(C)]
#[derive(Debug)]
pub struct Runtime {
    /// [`ABI_VERSION`] of the worker.
    pub abi_version: u32,
    /// Non-zero when the call should end at its next safe point; set from signal handlers.
    pub pending: AtomicU32,
    /// The call that runs now; null during `attach` and `init`.
    pub call: *mut Call,
    /// Allocates from the current arena; `align` is a power of two. Zeroed memory when `zeroed` is not 0.
    /// Does not return when the arena is used up.
    pub alloc: unsafe extern "C" fn(size: usize, align: usize, zeroed: u32) -> *mut u8,
    /// Gives back what `alloc` returned, with the same size and align. Memory of another arena is left alone.
    pub dealloc: unsafe extern "C" fn(ptr: *mut u8, size: usize, align: usize),
    /// Resizes, keeping the first `min(old, new)` bytes. Does not return when the arena is used up.
    pub realloc: unsafe extern "C" fn(ptr: *mut u8, old: usize, align: usize, new: usize) -> *mut u8,
    /// Makes `call.out` hold at least `total` bytes, keeping what is written. Does not return when `total`
    /// is over the response limit.
    pub reserve: unsafe extern "C" fn(total: usize),
    /// A safe point: called by the SDK when `pending` is not 0. Returns 0 to go on, else the call is to
    /// unwind by a panic now.
    pub checkpoint: unsafe extern "C" fn() -> u32,
    /// Bytes used in `message`.
    pub message_len: u32,
    /// Keeps `message` aligned; zero.
    pub reserved: u32,
    /// Text of the last panic or failed `init`, UTF-8.
    pub message: [u8; MESSAGE_BYTES],
    /// The worker's own; modules leave it alone.
    pub worker: *mut c_void,
}

const _: () = assert!(size_of::<Module>() == 32);
const _: () = assert!(size_of::<Function>() == 32);
const _: () = assert!(size_of::<Call>() == 80);
const _: () = assert!(core::mem::offset_of!(Runtime, call) == 8);
const _: () = assert!(core::mem::offset_of!(Runtime, message) == 64);
