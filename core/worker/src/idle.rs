//! How long an idle worker spins before it sleeps.
//!
//! Spinning pays when work comes soon: a wake across cores costs the host about 7 us and the call 20 to 45 us. So the limit follows
//! what would have paid: a sleep shorter than the most that the worker may spin raises the limit to that most, a longer one
//! halves it (as the kernel's halt polling does). A worker that shares its core with every host of its lanes never spins: the
//! host cannot run while it does.

/// See the module.
#[derive(Debug)]
pub struct Idle {
    spin_ns: u64,
    spin_ns_max: u64,
}

impl Idle {
    /// Starts without spinning: a spare sleeps until it has a worker's place, and one that has calls soon learns.
    #[must_use]
    pub fn new(spin_ns_max: u64) -> Self {
        Self { spin_ns: 0, spin_ns_max }
    }

    /// How long to spin before the next sleep, in nanoseconds.
    #[must_use]
    pub fn spin_ns(&self, shares_core: bool) -> u64 {
        if shares_core { 0 } else { self.spin_ns }
    }

    /// Learns from a sleep that work has ended, after spinning for `spin_ns`.
    pub fn slept(&mut self, slept_ns: u64) {
        if slept_ns < self.spin_ns_max {
            self.spin_ns = self.spin_ns_max;
        } else {
            self.spin_ns /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_make_it_spin_and_long_ones_stop_it() {
        let mut idle = Idle::new(100_000);
        assert_eq!(idle.spin_ns(false), 0);
        idle.slept(30_000);
        for _ in 0..20 {
            idle.slept(1_000_000_000);
        }
        assert_eq!(idle.spin_ns(false), 0);
        idle.slept(30_000);
        assert_eq!(idle.spin_ns(false), 100_000);
        assert_eq!(idle.spin_ns(true), 0);
    }
}
