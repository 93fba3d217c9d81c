//! All series of connections: where workers publish theirs and the scrape sums them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter},
};

use super::{
    labels::{ConnectionLabels, Reporter, SampleLabels},
    paths::Paths,
    worker::{ConnectionCounters, Sockets, Totals},
};
use crate::{limits::MAX_PATHS, telemetry::reason::ResponseFlags};

/// Series of all workers.
#[derive(Debug)]
pub(super) struct Traffic {
    max_series: usize,
    paths: Arc<Paths>,
    published: Mutex<Published>,
}

#[derive(Debug, Default)]
struct Published {
    series: HashMap<Arc<ConnectionLabels>, Arc<Series>>,
    overflow: Arc<Series>,
    sockets: Vec<Arc<Sockets>>,
}

/// The counters of one label set, one for each worker that met it.
#[derive(Debug, Default)]
struct Series {
    workers: Mutex<Vec<Arc<ConnectionCounters>>>,
}

/// The sums of one series; no labels stand for the overflow series.
struct Sample {
    labels: Option<Arc<ConnectionLabels>>,
    totals: Totals,
}

/// One traffic metric: its name, its help and its value for each response flag.
struct Metric {
    name: &'static str,
    help: &'static str,
    value: fn(&Totals, ResponseFlags) -> Option<u64>,
}

const METRICS: [Metric; 5] = [
    Metric {
        name: "istio_tcp_connections_opened",
        help: "TCP connections opened",
        value: |totals, flags| without_flags(flags, totals.opened),
    },
    Metric {
        name: "istio_tcp_connections_closed",
        help: "TCP connections closed",
        value: |totals, flags| non_zero(totals.closed[flags as usize]),
    },
    Metric {
        name: "istio_tcp_connections_failed",
        help: "TCP connections closed with a failure",
        value: |totals, flags| match flags {
            ResponseFlags::None => None,
            ResponseFlags::Deny
            | ResponseFlags::Connect
            | ResponseFlags::TlsFailure
            | ResponseFlags::H2HandshakeFailure
            | ResponseFlags::NetworkPolicy
            | ResponseFlags::IdentityError
            | ResponseFlags::CertRevoked => non_zero(totals.closed[flags as usize]),
        },
    },
    Metric {
        name: "istio_tcp_received_bytes",
        help: "Bytes from clients to servers",
        value: |totals, flags| without_flags(flags, totals.request_bytes),
    },
    Metric {
        name: "istio_tcp_sent_bytes",
        help: "Bytes from servers to clients",
        value: |totals, flags| without_flags(flags, totals.response_bytes),
    },
];

// === impl Traffic ===

impl Traffic {
    pub(super) fn new(max_series: usize) -> Self {
        let paths = Arc::new(Paths::new(MAX_PATHS));
        Self { max_series, paths, published: Mutex::default() }
    }

    pub(super) fn paths(&self) -> &Arc<Paths> {
        &self.paths
    }

    pub(super) fn max_series(&self) -> usize {
        self.max_series
    }

    /// Makes a worker's counters visible that it has from the start.
    pub(super) fn add_worker(&self, overflow: Arc<ConnectionCounters>, sockets: Arc<Sockets>) {
        let mut published = lock(&self.published);
        lock(&published.overflow.workers).push(overflow);
        published.sockets.push(sockets);
    }

    /// Returns new counters for a worker that meets these labels for the first time, or `None` when
    /// the bound is reached and no worker has met them.
    pub(super) fn publish(
        &self,
        labels: &Arc<ConnectionLabels>,
    ) -> Option<Arc<ConnectionCounters>> {
        let mut published = lock(&self.published);
        let series = match published.series.get(labels) {
            Some(series) => series,
            None if published.series.len() >= self.max_series => return None,
            None => published.series.entry(Arc::clone(labels)).or_default(),
        };
        let counters = Arc::new(ConnectionCounters::new(self.paths.of(labels)));
        lock(&series.workers).push(Arc::clone(&counters));
        Some(counters)
    }

    /// Sums every series over the workers; last, the overflow series.
    fn samples(&self) -> Vec<Sample> {
        // Only the handles are copied under the lock: a worker may wait for it.
        let (series, overflow): (Vec<_>, _) = {
            let published = lock(&self.published);
            let series = published.series.iter();
            (
                series.map(|(labels, series)| (Arc::clone(labels), Arc::clone(series))).collect(),
                Arc::clone(&published.overflow),
            )
        };
        let mut samples: Vec<_> = series
            .into_iter()
            .map(|(labels, series)| Sample { labels: Some(labels), totals: series.totals() })
            .collect();
        samples.push(Sample { labels: None, totals: overflow.totals() });
        samples
    }

    fn sockets_open(&self, reporter: Reporter) -> i64 {
        let published = lock(&self.published);
        published.sockets.iter().map(|sockets| sockets.of(reporter).load(Relaxed)).sum()
    }

    fn encode_sockets(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "istio_tcp_sockets_open",
            "Accepted sockets that are open",
            None,
            MetricType::Gauge,
        )?;
        for reporter in [Reporter::Source, Reporter::Destination] {
            metric
                .encode_family(&[("reporter", reporter.as_str())])?
                .encode_gauge(&self.sockets_open(reporter))?;
        }
        Ok(())
    }
}

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = self.samples();
        for metric in &METRICS {
            metric.encode(&samples, &mut encoder)?;
        }
        self.encode_sockets(&mut encoder)?;
        let overflowed = samples.iter().filter(|sample| sample.labels.is_none());
        let overflowed = ConstCounter::new(overflowed.map(|sample| sample.totals.opened).sum());
        <ConstCounter<u64> as EncodeMetric>::encode(
            &overflowed,
            encoder.encode_descriptor(
                "fairlead_metric_series_overflow",
                "Connections counted in the overflow series because there are too many label sets",
                None,
                overflowed.metric_type(),
            )?,
        )
    }
}

// === impl Series ===

impl Series {
    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for counters in lock(&self.workers).iter() {
            totals.add(counters);
        }
        totals
    }
}

// === impl Metric ===

impl Metric {
    fn encode(&self, samples: &[Sample], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric =
            encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
        for Sample { labels, totals } in samples {
            // A process that never overflowed shows no overflow series.
            if labels.is_none() && totals.opened == 0 {
                continue;
            }
            for flags in ResponseFlags::ALL {
                if let Some(value) = (self.value)(totals, flags) {
                    metric
                        .encode_family(&SampleLabels { labels: labels.as_deref(), flags })?
                        .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
                }
            }
        }
        Ok(())
    }
}

/// Metrics that are not about the end of a connection carry the flag `-` only.
fn without_flags(flags: ResponseFlags, value: u64) -> Option<u64> {
    (flags == ResponseFlags::None).then_some(value)
}

fn non_zero(value: u64) -> Option<u64> {
    (value > 0).then_some(value)
}

/// The counters are valid at every moment, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
