//! Figures of many rounds, each with how near the cores were while it was taken: like is summed up with like.

use hdrhistogram::Histogram;

use super::cores::Distance;

/// One figure in one round.
#[derive(Debug, Clone, Copy)]
struct Sample {
    value: f64,
    /// The ping-pong around it.
    pingpong_ns: f64,
    distance: Distance,
    n: u64,
}

/// One figure, in all rounds.
#[derive(Debug)]
pub(super) struct Samples {
    samples: Vec<Sample>,
    /// Of single round trips, where there are any, for the tails.
    near: Histogram<u64>,
    far: Histogram<u64>,
}

/// A new histogram of nanoseconds up to 10 s.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("the bounds are valid")
}

impl Default for Samples {
    fn default() -> Self {
        Self { samples: Vec::new(), near: histogram(), far: histogram() }
    }
}

impl Samples {
    /// Adds a round's value, from `n` single measurements.
    pub(super) fn add(&mut self, value: f64, n: u64, before_ns: f64, after_ns: f64) {
        let pingpong_ns = f64::midpoint(before_ns, after_ns);
        let distance = Distance::of(before_ns, after_ns);
        self.samples.push(Sample { value, pingpong_ns, distance, n });
    }

    /// Adds a round's single times, as [`add`](Self::add) adds their median.
    pub(super) fn add_times(&mut self, times: &Histogram<u64>, clock_ns: f64, before_ns: f64, after_ns: f64) {
        let p50 = net(times.value_at_quantile(0.5), clock_ns);
        self.add(p50, times.len(), before_ns, after_ns);
        let all = match Distance::of(before_ns, after_ns) {
            Distance::Near => &mut self.near,
            Distance::Far => &mut self.far,
            Distance::Mixed => return,
        };
        all.add(times).expect("all histograms have the same bounds");
    }

    /// The samples of one distance; all where there are none of it.
    fn of(&self, distance: Distance) -> Vec<Sample> {
        let same: Vec<Sample> = self.samples.iter().copied().filter(|s| s.distance == distance).collect();
        if same.is_empty() { self.samples.clone() } else { same }
    }

    /// Rounds of a distance.
    pub(super) fn rounds(&self, distance: Distance) -> usize {
        self.samples.iter().filter(|sample| sample.distance == distance).count()
    }

    /// Median over the rounds.
    pub(super) fn median(&self, distance: Distance) -> f64 {
        median(self.of(distance).iter().map(|sample| sample.value).collect())
    }

    /// Median over the rounds of the figure's multiple of its own ping-pong.
    pub(super) fn ratio(&self, distance: Distance) -> f64 {
        median(self.of(distance).iter().map(|sample| sample.value / sample.pingpong_ns.max(1.0)).collect())
    }

    /// A quantile of all single times.
    pub(super) fn quantile(&self, distance: Distance, quantile: f64, clock_ns: f64) -> f64 {
        let (first, second) = match distance {
            Distance::Far => (&self.far, &self.near),
            Distance::Near | Distance::Mixed => (&self.near, &self.far),
        };
        let times = if first.is_empty() { second } else { first };
        if times.is_empty() {
            self.median(distance)
        } else {
            net(times.value_at_quantile(quantile), clock_ns)
        }
    }

    /// Single measurements behind the figure.
    pub(super) fn n(&self, distance: Distance) -> u64 {
        self.of(distance).iter().map(|sample| sample.n).sum()
    }
}

/// A time without the reading of the clock that is in it.
fn net(ns: u64, clock_ns: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 ns")]
    let ns = ns as f64;
    (ns - clock_ns).max(0.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_is_compared_with_like() {
        let mut samples = Samples::default();
        samples.add(200.0, 10, 100.0, 100.0);
        samples.add(220.0, 10, 100.0, 120.0);
        samples.add(900.0, 10, 600.0, 600.0);
        samples.add(500.0, 10, 100.0, 600.0);
        assert_eq!(samples.median(Distance::Near), 210.0);
        assert_eq!(samples.ratio(Distance::Near), 2.0);
        assert_eq!((samples.median(Distance::Far), samples.n(Distance::Far)), (900.0, 10));
        assert_eq!(samples.rounds(Distance::Mixed), 1);
    }

    #[test]
    fn tails_are_of_all_single_times() {
        let mut samples = Samples::default();
        let mut times = histogram();
        (1..=100).for_each(|ns| times.record(ns * 10).expect("in bounds"));
        samples.add_times(&times, 10.0, 100.0, 100.0);
        samples.add_times(&times, 10.0, 100.0, 100.0);
        assert_eq!(samples.median(Distance::Near), 490.0);
        assert_eq!(samples.quantile(Distance::Near, 0.99, 10.0), 980.0);
        assert_eq!(samples.n(Distance::Near), 200);
    }
}
