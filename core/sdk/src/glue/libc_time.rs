//! The C library's calendar and its random numbers, over the module's own statics.
//!
//! glibc takes a lock for each of them, `gmtime_r` included: a call that is ended with it in hand leaves it to all that come after. Here the calendar is computed, in UTC,
//! which is what a worker has: it can read no other time zone. Random numbers begin anew with each call, as a process's do.
#![expect(unsafe_code, reason = "the C interface of a calendar")]

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_long, c_uint};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU64, Ordering};

use libc::{time_t, tm};

const DAY: i64 = 86_400;
/// Days from the 1st of March of the year 0 to the 1st of January 1970.
const EPOCH: i64 = 719_468;
/// Days in 400 years.
const ERA: i64 = 146_097;

/// Days since 1970 of a day; months and days count from 1 and 1, and years begin in March here, so that the leap day is their last.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year.div_euclid(400) * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH
}

/// The calendar's fields of a time; `None` where the year does not fit.
fn fields(time: time_t, zone: &'static CStr) -> Option<tm> {
    let (days, second) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    let (era, of_era) = ((days + EPOCH).div_euclid(ERA), (days + EPOCH).rem_euclid(ERA));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let field = |value: i64| c_int::try_from(value).ok();
    Some(tm {
        tm_sec: field(second % 60)?,
        tm_min: field(second / 60 % 60)?,
        tm_hour: field(second / 3600)?,
        tm_mday: field(day)?,
        tm_mon: field(month - 1)?,
        tm_year: field(year - 1900)?,
        tm_wday: field((days + 4).rem_euclid(7))?,
        tm_yday: field(days - days_of(year, 1, 1))?,
        tm_isdst: 0,
        tm_gmtoff: 0,
        tm_zone: zone.as_ptr(),
    })
}

/// # Safety
/// `time` is readable, `out` may be written.
unsafe fn break_down(time: *const time_t, out: *mut tm, zone: &'static CStr) -> *mut tm {
    // SAFETY: the caller's promise.
    let Some(fields) = fields(unsafe { time.read() }, zone) else {
        super::libc_process::fail(libc::EOVERFLOW);
        return null_mut();
    };
    // SAFETY: the caller's promise.
    unsafe { out.write(fields) };
    out
}

/// `gmtime_r(3)`.
///
/// # Safety
/// `time` is readable, `out` may be written.
pub unsafe extern "C" fn gmtime_r(time: *const time_t, out: *mut tm) -> *mut tm {
    // SAFETY: the caller's promise.
    unsafe { break_down(time, out, c"GMT") }
}

/// `localtime_r(3)`.
///
/// # Safety
/// `time` is readable, `out` may be written.
pub unsafe extern "C" fn localtime_r(time: *const time_t, out: *mut tm) -> *mut tm {
    // SAFETY: the caller's promise.
    unsafe { break_down(time, out, c"UTC") }
}

/// What `gmtime` and `localtime` answer with.
struct Shared(UnsafeCell<MaybeUninit<tm>>);

// SAFETY: a module runs on one thread.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared(UnsafeCell::new(MaybeUninit::uninit()));

/// `gmtime(3)`, `localtime(3)`.
///
/// # Safety
/// `time` is readable; nobody uses what the call before returned as a reference.
pub unsafe extern "C" fn localtime(time: *const time_t) -> *mut tm {
    // SAFETY: the caller's promise; the static may be written: one thread, and no reference into it is made.
    unsafe { break_down(time, SHARED.0.get().cast(), c"UTC") }
}

/// `mktime(3)`, `timegm(3)`: fields may be out of their ranges, and are in them afterwards.
///
/// # Safety
/// `out` is a `tm` that may be written.
pub unsafe extern "C" fn mktime(out: *mut tm) -> time_t {
    // SAFETY: the caller's promise.
    let given = unsafe { out.read() };
    let months = i64::from(given.tm_mon);
    let year = 1900 + i64::from(given.tm_year) + months.div_euclid(12);
    let days = days_of(year, months.rem_euclid(12) + 1, 1) + i64::from(given.tm_mday) - 1;
    // None of them is over 2^31, and days are about as many as 2^31 years have: far from overflowing.
    let seconds = i64::from(given.tm_hour) * 3600 + i64::from(given.tm_min) * 60 + i64::from(given.tm_sec);
    let time = days * DAY + seconds;
    // SAFETY: a local, and the caller's promise.
    if unsafe { break_down(&raw const time, out, c"UTC") }.is_null() { -1 } else { time }
}

/// Relaxed: one thread.
static RANDOM: AtomicU64 = AtomicU64::new(1);

/// `srand(3)`, `srandom(3)`.
pub extern "C" fn seed(seed: c_uint) {
    RANDOM.store(seed.into(), Ordering::Relaxed);
}

/// `rand(3)`, `random(3)`: 31 bits.
pub extern "C" fn random() -> c_long {
    let next = RANDOM.load(Ordering::Relaxed).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    RANDOM.store(next, Ordering::Relaxed);
    // 31 bits fit.
    c_long::try_from(next >> 33).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: &tm) -> String {
        let tm { tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year, tm_wday, tm_yday, tm_isdst, .. } = of;
        format!("{tm_year} {tm_mon} {tm_mday} {tm_hour} {tm_min} {tm_sec} {tm_wday} {tm_yday} {tm_isdst}")
    }

    fn zero() -> tm {
        fields(0, c"UTC").unwrap()
    }

    #[test]
    fn times_are_what_the_c_library_says() {
        let near = (-2_000_000..2_000_000i64).step_by(7).map(|n| n * 43_200 + n % 43_200);
        let far = [i64::MIN, i64::MIN / 2, -67_768_040_609_740_801, -67_768_040_609_740_800];
        let far = far
            .into_iter()
            .flat_map(|n| [n, n.saturating_neg()])
            .chain([67_768_036_191_676_799, 67_768_036_191_676_800]);
        for time in near.chain(far) {
            let (mut ours, mut theirs) = (zero(), zero());
            // SAFETY: locals of the test's own.
            let found = unsafe { gmtime_r(&raw const time, &raw mut ours) };
            // SAFETY: as above.
            let expected = unsafe { libc::gmtime_r(&raw const time, &raw mut theirs) };
            assert_eq!(found.is_null(), expected.is_null(), "{time}");
            if !found.is_null() {
                assert_eq!(text(&ours), text(&theirs), "{time}");
                // SAFETY: as above.
                assert_eq!(unsafe { mktime(&raw mut ours) }, time);
            }
        }
    }

    #[test]
    fn fields_out_of_range_are_carried() {
        for (month, day, hour, second) in
            [(13, 0, -1, 61), (-25, 400, 49, -1), (1, 30, 24, 0), (i32::MAX, 1, 0, 0)]
        {
            let given =
                tm { tm_mon: month, tm_mday: day, tm_hour: hour, tm_sec: second, tm_year: 100, ..zero() };
            let (mut ours, mut theirs) = (given, given);
            // SAFETY: locals of the test's own.
            let found = unsafe { mktime(&raw mut ours) };
            // SAFETY: as above.
            let expected = unsafe { libc::timegm(&raw mut theirs) };
            assert_eq!((found, text(&ours)), (expected, text(&theirs)), "{month} {day} {hour} {second}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let numbers = |from| {
            seed(from);
            [(); 100].map(|()| random())
        };
        let (first, other) = (numbers(1), numbers(2));
        assert!(numbers(1) == first && first != other && first.iter().all(|n| (0..1 << 31).contains(n)));
    }
}
