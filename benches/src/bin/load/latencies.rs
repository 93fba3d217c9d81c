//! Latencies of one run, and the line that reports them.

use std::time::Duration;

use serde_json::json;

/// Latencies, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies(Vec<f64>);

// === impl Latencies ===

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.push(latency.as_secs_f64() * 1e6);
    }

    pub(crate) fn merge(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Prints what the harness reads; `first` is the latency of what came before the rest.
    pub(crate) fn report(mut self, elapsed: Duration, errors: usize, first: Option<Duration>) {
        self.0.sort_unstable_by(f64::total_cmp);
        let report = json!({
            "completed": self.0.len(),
            "errors": errors,
            "first_us": first.map(|first| first.as_secs_f64() * 1e6),
            "seconds": elapsed.as_secs_f64(),
            "p50_us": self.percentile(50),
            "p90_us": self.percentile(90),
            "p99_us": self.percentile(99),
        });
        println!("{report}");
    }

    /// Nearest rank.
    fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_value_that_covers_it() {
        let latencies = Latencies((1..=200).map(f64::from).collect());
        for (percent, expected) in [(50, 100.0), (99, 198.0), (100, 200.0)] {
            assert_eq!(latencies.percentile(percent), Some(expected));
        }
        assert_eq!(Latencies::default().percentile(50), None);
        assert_eq!(Latencies(vec![7.0]).percentile(1), Some(7.0));
    }
}
