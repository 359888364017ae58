//! Where the worker enters a module: the wall that no unwinding crosses.
#![expect(unsafe_code, reason = "the worker calls with raw pointers")]

use core::any::Any;
use core::cell::Cell;
use core::hint::black_box;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use std::hash::RandomState;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use microfaas_abi::{Call, OUTCOME_ERROR, OUTCOME_OK, OUTCOME_PANIC, Outcome, Runtime};

use super::invocation::Invocation;
use super::runtime;
use crate::Error;

/// Whether the hook has written the message of the panic that unwinds. Relaxed: one thread.
static MESSAGE_SET: AtomicBool = AtomicBool::new(false);

/// Whether the text stays as it is: what panics now is no cause of the call's end. Relaxed: one thread.
static OVER: AtomicBool = AtomicBool::new(false);

thread_local! {
    static TOUCHED: Cell<u8> = const { Cell::new(0) };
}

/// The module's `attach` entry.
///
/// # Safety
/// `runtime` is valid for as long as the module is loaded, and is used on this thread only.
pub unsafe extern "C" fn attach(runtime: *mut Runtime) {
    runtime::set(runtime);
    // The loader allocates thread-local storage at the first touch: let that be now, not within a call.
    TOUCHED.with(|cell| black_box(cell).set(1));
    // Hash maps draw their keys from the kernel once for each thread and keep them in thread-local storage. Drawn now,
    // they are part of the state that calls start from, and no call pays the system call.
    black_box(RandomState::new());
    // A function without state: boxing it does not allocate.
    std::panic::set_hook(Box::new(keep_message));
}

/// Runs one call. `call` comes from the attribute macro.
///
/// # Safety
/// `raw` is the current call: valid, its pointers valid for their lengths, its request unchanging while it runs.
#[inline(always)]
pub unsafe fn run_call(raw: *mut Call, call: fn(&Invocation<'_>) -> Outcome) -> Outcome {
    let Some(raw) = NonNull::new(raw) else { return OUTCOME_PANIC };
    // A function that keeps its statics may have caught a panic in an earlier call, whose text is no longer there.
    MESSAGE_SET.store(false, Ordering::Relaxed);
    // SAFETY: the caller's promise; the invocation ends with this function.
    let invocation = unsafe { Invocation::new(raw) };
    match catch_unwind(AssertUnwindSafe(|| call(&invocation))) {
        Ok(outcome) => outcome,
        Err(payload) => {
            caught(payload);
            // SAFETY: the caller's promise; what referred to the call has been unwound.
            let call = unsafe { &mut *raw.as_ptr() };
            call.out_body_len = 0;
            call.out_meta_len = 0;
            OUTCOME_PANIC
        }
    }
}

/// Runs one function's `init`.
#[inline(always)]
pub fn run_init(init: fn() -> Result<(), Error>) -> Outcome {
    match catch_unwind(init) {
        Ok(Ok(())) => OUTCOME_OK,
        Ok(Err(error)) => {
            runtime::set_message(format_args!("{error}"));
            OUTCOME_ERROR
        }
        Err(payload) => {
            caught(payload);
            OUTCOME_PANIC
        }
    }
}

#[cold]
fn caught(payload: Box<dyn Any + Send>) {
    // What `resume_unwind` started did not pass the hook.
    if !MESSAGE_SET.swap(false, Ordering::Relaxed) {
        match text_of(&*payload) {
            _ if payload.is::<runtime::CallEnded>() => {
                runtime::set_message(format_args!("ended at a checkpoint"))
            }
            Some(text) => runtime::set_message(format_args!("{text}")),
            None => runtime::set_message(format_args!("panic without a text")),
        }
    }
    // Dropped, since a function that keeps its heap would keep this as well. Its destructor is code of the author's and may panic; what it throws is left as it is.
    OVER.store(true, Ordering::Relaxed);
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        core::mem::forget(thrown);
    }
    OVER.store(false, Ordering::Relaxed);
}

/// The panic hook: silent, keeps the text for the worker.
fn keep_message(info: &PanicHookInfo<'_>) {
    if OVER.load(Ordering::Relaxed) {
        return;
    }
    let text = text_of(info.payload()).unwrap_or("panic without a text");
    match info.location() {
        Some(at) => {
            let file = short(at.file());
            runtime::set_message(format_args!("{text} ({file}:{}:{})", at.line(), at.column()));
        }
        None => runtime::set_message(format_args!("{text}")),
    }
    MESSAGE_SET.store(true, Ordering::Relaxed);
}

/// A source file from its crate's directory on: where that lay on the machine that built it is none of the caller's business.
fn short(file: &str) -> &str {
    if !file.starts_with('/') {
        return file;
    }
    let in_crate = file.rfind("/src/").unwrap_or(file.len());
    file[..in_crate].rfind('/').map_or(file, |slash| &file[slash + 1..])
}

fn text_of(payload: &(dyn Any + Send)) -> Option<&str> {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn files_are_named_from_their_crate_on() {
        for (file, expect) in [
            ("/home/me/shop/cart/src/api/add.rs", "cart/src/api/add.rs"),
            ("/rustc/59807616/library/core/src/option.rs", "core/src/option.rs"),
            ("/home/me/.cargo/registry/src/index-1a2b/syn-2.0.1/src/lib.rs", "syn-2.0.1/src/lib.rs"),
            ("src/lib.rs", "src/lib.rs"),
            ("/home/me/generated.rs", "generated.rs"),
            ("", ""),
        ] {
            assert_eq!(short(file), expect, "{file}");
        }
    }
}
