//! How busy the threads of this process are.
//!
//! The threads that serve connections run their tasks by themselves, where the runtime neither
//! counts nor queues them: what is shown is what it measures of the thread.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};
use tokio::runtime::RuntimeMetrics;

/// The one worker of a runtime of one thread.
const ONLY_WORKER: usize = 0;

/// The runtimes of this process, each of one thread.
#[derive(Clone, Debug, Default)]
pub struct Runtimes(Arc<Mutex<Vec<(String, RuntimeMetrics)>>>);

// === impl Runtimes ===

impl Runtimes {
    /// Shows the runtime of the thread with this name from here on.
    pub fn add(&self, thread: impl Into<String>, metrics: RuntimeMetrics) {
        // A push is whole even after a panic elsewhere.
        let mut runtimes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runtimes.push((thread.into(), metrics));
    }
}

impl Collector for Runtimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let runtimes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        encoder
            .encode_descriptor(
                "tokio_num_workers",
                "Threads that run tasks",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&(runtimes.len() as u64))?;
        let mut busy = encoder.encode_descriptor(
            "tokio_worker_total_busy_duration_seconds",
            "Time that a thread has been busy",
            None,
            MetricType::Counter,
        )?;
        for (thread, metrics) in &runtimes {
            let seconds = metrics.worker_total_busy_duration(ONLY_WORKER).as_secs_f64();
            busy.encode_family(&[("worker", thread.as_str())])?
                .encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        let mut parks = encoder.encode_descriptor(
            "tokio_worker_park_count",
            "How often a thread had nothing to do",
            None,
            MetricType::Counter,
        )?;
        for (thread, metrics) in &runtimes {
            let count = metrics.worker_park_count(ONLY_WORKER);
            parks
                .encode_family(&[("worker", thread.as_str())])?
                .encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn the_time_that_a_thread_is_busy_is_shown() {
        let runtimes = Runtimes::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(runtimes.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtimes.add("proxy-0", runtime.metrics());
        let shown = |name: &str| {
            let mut page = String::new();
            text::encode(&mut page, &registry).unwrap();
            let line = page.lines().find(|line| line.starts_with(name));
            let value = line.unwrap_or_else(|| panic!("{name} in {page}")).rsplit(' ').next();
            value.unwrap().parse::<f64>().unwrap()
        };
        assert!((shown("tokio_num_workers ") - 1.0).abs() < 0.1);
        // Its times are told when it rests.
        let busy = "tokio_worker_total_busy_duration_seconds_total{worker=\"proxy-0\"}";
        while shown(busy) <= 0.0 {
            tokio::task::LocalSet::new().block_on(&runtime, tokio::task::yield_now());
        }
        assert!(shown("tokio_worker_park_count_total{worker=\"proxy-0\"}") >= 0.0);
    }
}
