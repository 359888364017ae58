//! Between the safe surface and the worker: the other end of the contract in `microfaas_abi`.
//!
//! All `unsafe` of this crate is in here. A module holds its own copy of this crate, and a worker runs one
//! call at a time on one thread, so what is static here belongs to one instance and is put back by the worker after each call.

pub(crate) mod alloc;
pub(crate) mod entry;
mod export;
pub(crate) mod invocation;
pub mod libc_memory;
pub mod libc_process;
pub mod libc_threads;
pub mod libc_time;
pub(crate) mod out;
pub(crate) mod runtime;
pub(crate) mod state;

use invocation::Invocation;
use microfaas_abi::{Outcome, is_function_name};

use crate::Error;

/// One function of a crate, as the attribute macro describes it to the shim that exports it.
#[derive(Debug, Clone, Copy)]
pub struct FunctionDef {
    #[doc(hidden)]
    pub name: &'static str,
    #[doc(hidden)]
    pub init: Option<fn() -> Result<(), Error>>,
    #[doc(hidden)]
    pub call: fn(&Invocation<'_>) -> Outcome,
}

impl FunctionDef {
    #[doc(hidden)]
    #[must_use]
    pub const fn __new(
        name: &'static str,
        init: Option<fn() -> Result<(), Error>>,
        call: fn(&Invocation<'_>) -> Outcome,
    ) -> Self {
        Self { name, init, call }
    }
}

/// An ELF note, aligned as notes are.
#[repr(C, align(4))]
#[derive(Debug)]
pub struct Note<const N: usize>(pub [u8; N]);

/// Refuses a name at compile time.
pub const fn check_name(name: &str) {
    assert!(
        is_function_name(name),
        "a function's name is 1 to 64 of a-z, 0-9, -, _ and ., starting with a letter or digit; give another with #[microfaas::function(name = \"…\")]"
    );
}

/// Whether no name occurs twice; at compile time.
#[must_use]
pub const fn names_are_distinct(names: &[&str]) -> bool {
    let mut i = 0;
    while i < names.len() {
        let mut j = i + 1;
        while j < names.len() {
            if same(names[i].as_bytes(), names[j].as_bytes()) {
                return false;
            }
            j += 1;
        }
        i += 1;
    }
    true
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
