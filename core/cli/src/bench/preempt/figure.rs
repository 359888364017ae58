//! Single values of one figure.

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Figure {
    values: Vec<f64>,
}

impl Figure {
    pub(super) fn add(&mut self, value: f64) {
        self.values.push(value);
    }

    pub(super) fn n(&self) -> u64 {
        self.values.len() as u64
    }

    /// The value below which this part of all lies; 0 where there are none.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of the list"
        )]
        let index = (sorted.len() as f64 * quantile) as usize;
        sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut figure = Figure::default();
        assert_eq!(figure.median(), 0.0);
        (0..100).rev().for_each(|i| figure.add(f64::from(i)));
        assert_eq!((figure.median(), figure.quantile(0.99), figure.quantile(1.0)), (50.0, 99.0, 99.0));
    }
}
