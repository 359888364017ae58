//! Preloaded into a node and its workers by the chaos suite's K26: the wall clock is right, an hour late and a day early, by turns of 40 ms. Other clocks are as they are.
//! Compiled by the suite itself (`rustc --crate-type cdylib`), since it is part of no program.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

const REALTIME: c_int = 0;
const MONOTONIC: c_int = 1;
const REALTIME_COARSE: c_int = 5;
const TAI: c_int = 11;

const TURN_MS: i64 = 40;
const SHIFTS: [i64; 3] = [0, -3600, 86_400];

#[repr(C)]
#[derive(Default)]
pub struct Time {
    seconds: i64,
    /// Nanoseconds or microseconds.
    rest: i64,
}

type Read = unsafe extern "C" fn(c_int, *mut Time) -> c_int;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The function that this one stands before.
fn real(clock: c_int, time: &mut Time) -> c_int {
    static NEXT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let mut next = NEXT.load(Ordering::Relaxed);
    if next.is_null() {
        let after_this = std::ptr::without_provenance_mut(usize::MAX);
        // SAFETY: `RTLD_NEXT`, and a name that ends with a zero.
        next = unsafe { dlsym(after_this, c"clock_gettime".as_ptr()) };
        NEXT.store(next, Ordering::Relaxed);
    }
    // SAFETY: the C library's function of this name is of this type.
    let next = unsafe { std::mem::transmute::<*mut c_void, Read>(next) };
    // SAFETY: it writes one time.
    unsafe { next(clock, time) }
}

fn read(clock: c_int) -> (c_int, Time) {
    let (mut time, mut now) = (Time::default(), Time::default());
    let result = real(clock, &mut time);
    if matches!(clock, REALTIME | REALTIME_COARSE | TAI) && real(MONOTONIC, &mut now) == 0 {
        let turn = (now.seconds * 1000 + now.rest / 1_000_000) / TURN_MS;
        time.seconds += SHIFTS[usize::try_from(turn).unwrap_or(0) % SHIFTS.len()];
    }
    (result, time)
}

/// # Safety
/// As `clock_gettime(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, to: *mut Time) -> c_int {
    let (result, time) = read(clock);
    // SAFETY: the caller's promise.
    unsafe { to.write(time) };
    result
}

/// # Safety
/// As `gettimeofday(2)`; there is no time zone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(to: *mut Time, _: *mut c_void) -> c_int {
    let (result, time) = read(REALTIME);
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { to.write(Time { rest: time.rest / 1000, ..time }) };
    }
    result
}

/// # Safety
/// As `time(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(to: *mut i64) -> i64 {
    let (_, time) = read(REALTIME);
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { to.write(time.seconds) };
    }
    time.seconds
}
