//! The C library's thread-specific data, over the module's own statics.
//!
//! The standard library asks for a key the first time that a thread's handle is needed (`thread::current`, a wait in a channel, a parked future) and keeps its number in a
//! static. A process has 1,024 keys; a reset forgets the number, not the key; so every call would take another, and with the last one
//! the standard library aborts in all modules of the worker. Here keys and values are statics of the module: a reset takes them back as well.
//!
//! Destructors never run: no call sees the end of its thread.
#![expect(unsafe_code, reason = "the C interface of thread-specific data")]

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use libc::pthread_key_t;

/// The standard library needs one, a C library that a crate brings along one or two. Each reset copies them.
const KEYS: usize = 32;

/// One bit for each key. Relaxed, as the values: one thread.
static TAKEN: AtomicU32 = AtomicU32::new(0);
static VALUES: [AtomicPtr<c_void>; KEYS] = [const { AtomicPtr::new(null_mut()) }; KEYS];

/// Keys count from 1: a 0 would have the standard library ask for another.
fn index(key: pthread_key_t) -> Option<usize> {
    let index = usize::try_from(key).ok()?.checked_sub(1)?;
    (index < KEYS && TAKEN.load(Ordering::Relaxed) >> index & 1 == 1).then_some(index)
}

/// `pthread_key_create(3)`, `tss_create(3)`. The destructor, its second argument, is never called.
///
/// # Safety
/// `key` may be written.
pub unsafe extern "C" fn key_create(key: *mut pthread_key_t) -> c_int {
    let taken = TAKEN.load(Ordering::Relaxed);
    let free = taken.trailing_ones();
    let Some(value) = VALUES.get(free as usize) else { return libc::EAGAIN };
    value.store(null_mut(), Ordering::Relaxed);
    TAKEN.store(taken | 1 << free, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { key.write(free + 1) };
    0
}

/// `pthread_key_delete(3)`.
pub extern "C" fn key_delete(key: pthread_key_t) -> c_int {
    let Some(index) = index(key) else { return libc::EINVAL };
    TAKEN.fetch_and(!(1 << index), Ordering::Relaxed);
    0
}

/// `pthread_setspecific(3)`.
pub extern "C" fn set_specific(key: pthread_key_t, value: *const c_void) -> c_int {
    let Some(index) = index(key) else { return libc::EINVAL };
    VALUES[index].store(value.cast_mut(), Ordering::Relaxed);
    0
}

/// `pthread_getspecific(3)`.
pub extern "C" fn get_specific(key: pthread_key_t) -> *mut c_void {
    index(key).map_or(null_mut(), |index| VALUES[index].load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only test that uses them: they are one table for the whole program.
    #[test]
    fn keys_hold_their_values_and_come_back() {
        let mut keys = [0; KEYS];
        for key in &mut keys {
            // SAFETY: a number of the test's own.
            assert_eq!(unsafe { key_create(key) }, 0);
            assert!(*key != 0 && get_specific(*key).is_null());
        }
        let mut none = 0;
        // SAFETY: as above.
        assert_eq!(unsafe { key_create(&raw mut none) }, libc::EAGAIN);
        for (n, &key) in keys.iter().enumerate() {
            assert_eq!(set_specific(key, core::ptr::without_provenance(n + 1)), 0);
        }
        for (n, &key) in keys.iter().enumerate() {
            assert_eq!(get_specific(key).addr(), n + 1);
        }
        assert_eq!(key_delete(keys[7]), 0);
        assert!(get_specific(keys[7]).is_null());
        assert_eq!(
            [key_delete(keys[7]), set_specific(keys[7], null_mut()), key_delete(0)],
            [libc::EINVAL; 3]
        );
        // SAFETY: as above.
        assert_eq!(unsafe { key_create(&raw mut none) }, 0);
        assert!(none == keys[7] && get_specific(none).is_null(), "a key begins without a value");
    }
}
