//! What one measurement found.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{table::number, usage::CpuTime};

/// A quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// The figures of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Of the whole system.
    pub(crate) figures: Vec<(Figure, f64)>,
    /// The shares of single processes of the proxies, by name.
    pub(crate) processes: Vec<(String, Figure, f64)>,
}

/// Processor time of all processes of the proxies.
pub(crate) const PROXY_CPU: &str = "CPU of the proxies";

/// Figures in a line of progress: as many as fit.
const SUMMARY_FIGURES: usize = 2;

// === impl Figure ===

impl Figure {
    pub(crate) const fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.name, self.unit)
    }
}

// === impl Sample ===

impl Sample {
    pub(crate) fn add(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.figures.push((Figure::new(name, unit), value));
    }

    /// Adds the processor time of the proxies, as `scale` relates it to the work that was done.
    pub(crate) fn add_cpu(
        &mut self,
        unit: &'static str,
        used: &CpuTime,
        scale: impl Fn(Duration) -> f64,
    ) {
        self.add(PROXY_CPU, unit, scale(used.proxies));
        for (process, time) in &used.processes {
            self.add_of(process.clone(), PROXY_CPU, unit, scale(*time));
        }
    }

    /// Adds the share of one process.
    pub(crate) fn add_of(
        &mut self,
        process: String,
        name: &'static str,
        unit: &'static str,
        value: f64,
    ) {
        self.processes.push((process, Figure::new(name, unit), value));
    }

    /// Returns the first figures, for a line of progress.
    pub(crate) fn summary(&self) -> String {
        let text = |(figure, value): &(Figure, f64)| {
            format!("{} {} {}", figure.name, number(*value), figure.unit)
        };
        self.figures.iter().take(SUMMARY_FIGURES).map(text).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_added_in_total_and_for_each_process() {
        let ms = Duration::from_millis;
        let processes = vec![("n1 proxy".to_owned(), ms(30)), ("n2 proxy".to_owned(), ms(10))];
        let used = CpuTime { proxies: ms(40), processes, machine: ms(90) };
        let mut sample = Sample::default();
        sample.add("connections", "per s", 1_000.0);
        sample.add_cpu("us each", &used, |cpu| cpu.as_secs_f64() * 1e6 / 100.0);
        assert_eq!(sample.summary(), "connections 1,000 per s, CPU of the proxies 400 us each");
        let shares: Vec<_> =
            sample.processes.iter().map(|(process, _, value)| (process.as_str(), *value)).collect();
        assert_eq!(shares, [("n1 proxy", 300.0), ("n2 proxy", 100.0)]);
    }
}
