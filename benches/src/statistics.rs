//! Samples of one quantity.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::table::number;

/// Samples in the order in which they were taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series(Vec<f64>);

// === impl Series ===

impl Series {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let even = sorted.len().is_multiple_of(2);
        Some(if even { f64::midpoint(sorted[middle - 1], upper) } else { upper })
    }

    pub(crate) fn smallest(&self) -> Option<f64> {
        self.0.iter().copied().reduce(f64::min)
    }

    pub(crate) fn largest(&self) -> Option<f64> {
        self.0.iter().copied().reduce(f64::max)
    }
}

impl fmt::Display for Series {
    /// The median, with the smallest and the largest sample if there are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.median(), self.smallest(), self.largest()) {
            (Some(median), Some(smallest), Some(largest)) if self.0.len() > 1 => {
                format!("{} ({} - {})", number(median), number(smallest), number(largest))
            }
            (Some(median), _, _) => number(median),
            (None, _, _) => "-".to_owned(),
        };
        f.pad(&text)
    }
}

impl Serialize for Series {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut series = serializer.serialize_struct("Series", 4)?;
        series.serialize_field("median", &self.median())?;
        series.serialize_field("smallest", &self.smallest())?;
        series.serialize_field("largest", &self.largest())?;
        series.serialize_field("samples", &self.0)?;
        series.end()
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series<const N: usize>(samples: [f64; N]) -> Series {
        samples.into_iter().collect()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(series([]).median(), None);
        assert_eq!(series([3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(series([4.0, 1.0]).median(), Some(2.5));
    }

    #[test]
    fn a_spread_shows_what_one_sample_cannot() {
        assert_eq!(series([]).to_string(), "-");
        assert_eq!(series([12.34]).to_string(), "12.3");
        assert_eq!(series([1_000.0, 3_000.0, 2_000.0]).to_string(), "2,000 (1,000 - 3,000)");
    }

    #[test]
    fn programs_get_every_sample_in_the_order_of_the_run() {
        let json = serde_json::to_value(series([3.0, 1.0])).unwrap();
        let expected = serde_json::json!({
            "median": 2.0, "smallest": 1.0, "largest": 3.0, "samples": [3.0, 1.0]
        });
        assert_eq!(json, expected);
    }
}
