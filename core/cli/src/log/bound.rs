//! A bound on what repeats: no place in the code logs more than [`MOST`] lines a second. How many were left out is said once a second.
//!
//! So neither a function that fails all the time nor a host that means harm fills a disk or hides what else there is to read.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tracing::subscriber::Interest;
use tracing::{Event, Metadata};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one place in a second.
pub(super) const MOST: u32 = 50;
const SECOND: Duration = Duration::from_secs(1);
/// One line for each request is what it is for; who does not want that turns it off.
const UNBOUND: &str = "microfaas::access";

/// A place in the code.
#[derive(Debug, Clone, Copy)]
struct Site(&'static Metadata<'static>);

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        self.0.callsite() == other.0.callsite()
    }
}

impl Eq for Site {}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.callsite().hash(state);
    }
}

/// Counts the lines of each place.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    places: Arc<Mutex<Places<Site>>>,
    reporter: Thread,
}

impl Bound {
    /// Starts the thread that says what was left out. It sleeps while nothing is.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(super) fn start() -> std::io::Result<Self> {
        let places = Arc::default();
        let theirs = Arc::clone(&places);
        let thread = thread::Builder::new().name("microfaas-log".into()).spawn(move || report(&theirs))?;
        Ok(Self { places, reporter: thread.thread().clone() })
    }
}

impl<S> Filter<S> for Bound {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let place = event.metadata();
        if place.target() == UNBOUND {
            return true;
        }
        match lock(&self.places).admit(Site(place), Instant::now()) {
            Verdict::Log => true,
            Verdict::LeaveOut { first } => {
                if first {
                    self.reporter.unpark();
                }
                false
            }
        }
    }
}

fn lock<K>(places: &Mutex<Places<K>>) -> MutexGuard<'_, Places<K>> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what was left out, a second after it began to be.
fn report(places: &Mutex<Places<Site>>) {
    loop {
        thread::park();
        thread::sleep(SECOND);
        let left_out = lock(places).take_left_out();
        for (place, lines) in left_out {
            let (place, line) = (place.0.target(), place.0.line());
            tracing::warn!(target: "microfaas::log", lines, place, line, "more of the same were left out");
        }
    }
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Log,
    /// `first`: nothing was left out before, since it was last said.
    LeaveOut {
        first: bool,
    },
}

#[derive(Debug)]
struct Places<K>(HashMap<K, Place>);

#[derive(Debug)]
struct Place {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Copy> Places<K> {
    fn admit(&mut self, place: K, now: Instant) -> Verdict {
        let any = self.0.values().any(|place| place.left_out > 0);
        let place = self.0.entry(place).or_insert(Place { since: now, lines: 0, left_out: 0 });
        if now.duration_since(place.since) >= SECOND {
            (place.since, place.lines) = (now, 0);
        }
        if place.lines < MOST {
            place.lines += 1;
            return Verdict::Log;
        }
        place.left_out += 1;
        Verdict::LeaveOut { first: !any }
    }

    fn take_left_out(&mut self) -> Vec<(K, u64)> {
        let left_out = |(key, place): (&K, &mut Place)| (*key, std::mem::take(&mut place.left_out));
        self.0.iter_mut().map(left_out).filter(|(_, lines)| *lines > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_says_more_than_it_may() {
        let (mut places, start) = (Places::default(), Instant::now());
        for _ in 0..MOST {
            assert_eq!(places.admit("a", start), Verdict::Log);
        }
        assert_eq!(places.admit("a", start), Verdict::LeaveOut { first: true });
        assert_eq!(places.admit("a", start), Verdict::LeaveOut { first: false });
        assert_eq!(places.admit("b", start), Verdict::Log, "another place");
        assert_eq!(places.take_left_out(), [("a", 2)]);
        assert_eq!(places.take_left_out(), []);
        assert_eq!(places.admit("a", start + SECOND / 2), Verdict::LeaveOut { first: true });
        assert_eq!(places.admit("a", start + SECOND), Verdict::Log);
    }
}
