//! How much is said within a second: the worker keeps to a limit, and the node holds it to that.

/// Most [`Fault`](crate::ToNode::Fault) packets that a worker sends within a second, but for those that end it. Faults beyond that are not told.
pub const FAULTS_PER_SECOND: u32 = 1000;
/// Most packets that nobody asked for which a node takes from a worker within a second: one that sends more is replaced. Well above what an honest one can come to: two of its
/// seconds may fall into one of the node's, and a lane that is cut is one packet more.
pub const UNASKED_PER_SECOND_MAX: u32 = 4 * FAULTS_PER_SECOND;

const SECOND_NS: u64 = 1_000_000_000;

/// Counts what happens within a second. A second begins with what happens first after the last one is over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    since_ns: u64,
    count: u32,
}

impl Rate {
    /// It happens now; how often it has in this second, this time included.
    pub fn count(&mut self, now_ns: u64) -> u32 {
        if now_ns.saturating_sub(self.since_ns) >= SECOND_NS {
            *self = Self { since_ns: now_ns, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_count() {
        let mut rate = Rate::default();
        let start = 5 * SECOND_NS;
        for now in 0..3 {
            assert_eq!(u64::from(rate.count(start + now)), now + 1);
        }
        assert_eq!(rate.count(start + SECOND_NS - 1), 4);
        assert_eq!(rate.count(start + SECOND_NS), 1);
        assert_eq!(rate.count(0), 2, "a clock that goes back begins nothing");
    }
}
