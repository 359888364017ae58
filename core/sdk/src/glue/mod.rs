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

/// Whether no name occurs twice; at compile time. `N` is how many there are.
///
/// # Cost
/// In proportion to n log² n: the compiler stops at what takes it long, and a module has up to 1,024 names.
#[must_use]
pub const fn names_are_distinct<const N: usize>(names: &[&str]) -> bool {
    let hashes = sorted_hashes::<N>(names);
    let mut i = 0;
    while i < N {
        let mut j = i + 1;
        // Mostly none: of different names with the same hash all pairs are looked at.
        while j < N && hashes[i].0 == hashes[j].0 {
            if same(names[hashes[i].1].as_bytes(), names[hashes[j].1].as_bytes()) {
                return false;
            }
            j += 1;
        }
        i += 1;
    }
    true
}

/// Hashes of names with the names' places, by hash. Shell's sort.
const fn sorted_hashes<const N: usize>(names: &[&str]) -> [(u64, usize); N] {
    let mut hashes = [(0, 0); N];
    let mut i = 0;
    while i < N {
        hashes[i] = (hash(names[i].as_bytes()), i);
        i += 1;
    }
    let mut gap = N / 2;
    while gap > 0 {
        let mut i = gap;
        while i < N {
            let moved = hashes[i];
            let mut j = i;
            while j >= gap && hashes[j - gap].0 > moved.0 {
                hashes[j] = hashes[j - gap];
                j -= gap;
            }
            hashes[j] = moved;
            i += 1;
        }
        gap /= 2;
    }
    hashes
}

/// FNV-1a.
const fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        // Widening.
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
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

#[cfg(test)]
mod tests {
    use super::names_are_distinct;

    const COUNT: usize = microfaas_abi::manifest::FUNCTIONS_MAX;

    /// All but their ends alike.
    const fn texts() -> [[u8; 64]; COUNT] {
        const DIGITS: &[u8; 16] = b"abcdefghijklmnop";
        let mut texts = [[b'a'; 64]; COUNT];
        let mut i = 0;
        while i < COUNT {
            texts[i][60] = DIGITS[i / 256 % 16];
            texts[i][61] = DIGITS[i / 16 % 16];
            texts[i][62] = DIGITS[i % 16];
            i += 1;
        }
        texts
    }

    const fn names(texts: &[[u8; 64]; COUNT]) -> [&str; COUNT] {
        let mut names = [""; COUNT];
        let mut i = 0;
        while i < COUNT {
            names[i] = match core::str::from_utf8(&texts[i]) {
                Ok(name) => name,
                Err(_) => panic!("letters"),
            };
            i += 1;
        }
        names
    }

    static TEXTS: [[u8; 64]; COUNT] = texts();
    const NAMES: [&str; COUNT] = names(&TEXTS);
    /// As many and as long as they may be; the compiler stops where it takes too long.
    const DISTINCT: bool = names_are_distinct::<COUNT>(&NAMES);

    #[test]
    fn names_that_occur_twice_are_found_wherever_they_are() {
        assert!(DISTINCT && names_are_distinct::<0>(&[]) && names_are_distinct::<1>(&["a"]));
        for (from, to) in [(0, 1), (0, COUNT - 1), (700, 3)] {
            let mut names = NAMES;
            names[to] = names[from];
            assert!(!names_are_distinct::<COUNT>(&names), "{from} and {to}");
        }
    }
}
