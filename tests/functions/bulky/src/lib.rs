//! Functions of a module with nearly as much writable memory as a module may have: all of it is kept for a call that is suspended, and put back after each.
//!
//! Bodies that are numbers are decimal text.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use microfaas::{Error, checkpoint};

static BULK: [AtomicU8; 15 << 20] = [const { AtomicU8::new(0) }; 15 << 20];

/// Works for as many rounds as the body says, some nanoseconds each; says what it finds in the module's memory, which is what it has written there, and when it was
/// done, in nanoseconds of the system's clock.
#[microfaas::function]
pub fn bulky_work(body: &[u8]) -> Result<String, Error> {
    let rounds: u64 = number(body)?;
    // The compiler is not to see that two bytes would do.
    let bulk = black_box(&BULK);
    let (first, last) = (&bulk[0], &bulk[bulk.len() - 1]);
    let before = first.load(Ordering::Relaxed) + last.load(Ordering::Relaxed);
    first.store(1, Ordering::Relaxed);
    last.store(2, Ordering::Relaxed);
    black_box((0..rounds).fold(1u64, |sum, round| black_box(sum.rotate_left(5) ^ round)));
    let after = first.load(Ordering::Relaxed) + last.load(Ordering::Relaxed);
    let time =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|_| Error::new("before 1970"))?;
    Ok(format!("{before} {after} {}", time.as_nanos()))
}

/// For a function that keeps its state. With a body of `count`: how many of its calls have dropped what they had, of those that its state remembers. Else keeps the core busy for as many
/// microseconds as the body says, with safe points.
#[microfaas::function]
pub fn guarded(body: &[u8]) -> Result<String, Error> {
    static DROPPED: AtomicU64 = AtomicU64::new(0);
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
    if body == b"count" {
        return Ok(DROPPED.load(Ordering::Relaxed).to_string());
    }
    let _guard = Guard;
    let (start, time) = (Instant::now(), Duration::from_micros(number(body)?));
    while start.elapsed() < time {
        checkpoint();
    }
    Ok("it was not ended".to_owned())
}

fn number<T: std::str::FromStr>(body: &[u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(body).ok().map(str::trim);
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::new("the body is not a number").with_status(400))
}
