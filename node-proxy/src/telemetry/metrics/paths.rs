//! How packets fare between workloads: what the kernel has measured, by pair of workloads.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use fairlead_tunnel::hbone::transport::PathReport;
use mesh_api::identity::Namespace;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::labels::{ConnectionLabels, End, OVERFLOW, Reporter, UNKNOWN};

/// Upper bounds of the histograms, in microseconds: from a node's neighbour to the other side of the
/// world, and to a SYN that had to be sent again after one second or three.
const BOUNDS_MICROS: [u64; 10] =
    [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000];

/// The paths of all workers.
#[derive(Debug)]
pub(super) struct Paths {
    max: usize,
    known: Mutex<HashMap<PathLabels, Arc<Path>>>,
    overflow: Arc<Path>,
}

/// What was measured between two workloads. All threads share it, which write when a connection ends.
#[derive(Debug, Default)]
pub(super) struct Path {
    round_trips: Times,
    connects: Times,
    retransmits: AtomicU64,
}

/// A histogram of times.
#[derive(Debug, Default)]
struct Times {
    /// Not cumulative; the last one is for times beyond all bounds.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

/// What identifies a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PathLabels {
    reporter: Reporter,
    source: Workloads,
    destination: Workloads,
}

/// The pods at one end: those of one workload, such as a Deployment, as far as known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Workloads {
    namespace: Option<Namespace>,
    name: Option<Arc<str>>,
}

/// Labels of a sample; none stand for the overflow.
#[derive(Debug)]
struct SampleLabels<'a>(Option<&'a PathLabels>);

type Sample = (Option<PathLabels>, Arc<Path>);

// === impl Paths ===

impl Paths {
    pub(super) fn new(max: usize) -> Self {
        Self { max, known: Mutex::default(), overflow: Arc::default() }
    }

    /// Returns the path that connections with these labels take.
    pub(super) fn of(&self, labels: &ConnectionLabels) -> Arc<Path> {
        let labels = PathLabels {
            reporter: labels.reporter,
            source: Workloads::at(&labels.source),
            destination: Workloads::at(&labels.destination),
        };
        let mut known = self.lock();
        match known.get(&labels) {
            Some(path) => path.clone(),
            None if known.len() >= self.max => self.overflow(),
            None => known.entry(labels).or_default().clone(),
        }
    }

    pub(super) fn overflow(&self) -> Arc<Path> {
        self.overflow.clone()
    }

    fn samples(&self) -> Vec<Sample> {
        // Only the handles are copied under the lock: a worker may wait for it.
        let known: Vec<_> =
            self.lock().iter().map(|(labels, path)| (Some(labels.clone()), path.clone())).collect();
        known.into_iter().chain([(None, self.overflow())]).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathLabels, Arc<Path>>> {
        // Every change of the map is a single insert: it is whole even after a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Paths {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = self.samples();
        encode_times(
            &mut encoder,
            "fairlead_tcp_round_trip_seconds",
            "Smoothed round-trip time of a connection between nodes when what it carried ended",
            samples.iter().map(|(labels, path)| (labels, &path.round_trips)),
        )?;
        encode_times(
            &mut encoder,
            "fairlead_tcp_connect_seconds",
            "Time to connect to another node, tunnels included",
            samples.iter().map(|(labels, path)| (labels, &path.connects)),
        )?;
        let mut metric = encoder.encode_descriptor(
            "fairlead_tcp_retransmitted_segments",
            "TCP segments that this side of connections between nodes had to send again",
            None,
            MetricType::Counter,
        )?;
        for (labels, path) in samples.iter().filter(|(_, path)| path.round_trips.count() > 0) {
            metric
                .encode_family(&SampleLabels(labels.as_ref()))?
                .encode_counter::<NoLabelSet, u64, u64>(&path.retransmits.load(Relaxed), None)?;
        }
        Ok(())
    }
}

fn encode_times<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (&'a Option<PathLabels>, &'a Times)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, times) in samples.filter(|(_, times)| times.count() > 0) {
        let labels = SampleLabels(labels.as_ref());
        let mut metric = metric.encode_family(&labels)?;
        times.encode(|sum, count, buckets| {
            metric.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
        })?;
    }
    Ok(())
}

// === impl Path ===

impl Path {
    pub(super) fn observe(&self, report: &PathReport) {
        if let Some(time) = report.round_trip {
            self.round_trips.observe(time);
        }
        if let Some(time) = report.connect_time {
            self.connects.observe(time);
        }
        if report.retransmits > 0 {
            self.retransmits.fetch_add(report.retransmits.into(), Relaxed);
        }
    }
}

// === impl Times ===

impl Times {
    fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Gives the sum in seconds, the count, and the buckets to `write`.
    fn encode(&self, write: impl FnOnce(f64, u64, &[(f64, u64)]) -> fmt::Result) -> fmt::Result {
        let bounds = BOUNDS_MICROS.into_iter().map(seconds).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        write(seconds(self.sum_micros.load(Relaxed)), count, &buckets)
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

// === impl Workloads ===

impl Workloads {
    fn at(end: &End) -> Self {
        let name = end.workload.as_ref().map(|workload| workload.workload_name.clone());
        Self {
            namespace: end.workload_namespace().cloned(),
            name: name.filter(|name| !name.is_empty()),
        }
    }
}

// === impl SampleLabels ===

impl EncodeLabelSet for SampleLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let of = |end: Option<&Workloads>| match end {
            None => [OVERFLOW.to_owned(), OVERFLOW.to_owned()],
            Some(Workloads { namespace, name }) => [
                name.as_deref().unwrap_or(UNKNOWN).to_owned(),
                namespace.as_ref().map_or(UNKNOWN, Namespace::as_str).to_owned(),
            ],
        };
        let reporter = self.0.map_or(OVERFLOW, |labels| labels.reporter.as_str());
        let source = of(self.0.map(|labels| &labels.source));
        let destination = of(self.0.map(|labels| &labels.destination));
        [
            ("reporter", reporter),
            ("source_workload", source[0].as_str()),
            ("source_workload_namespace", source[1].as_str()),
            ("destination_workload", destination[0].as_str()),
            ("destination_workload_namespace", destination[1].as_str()),
        ]
        .encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;
    use crate::telemetry::fixtures::labels;

    fn page(paths: &Arc<Paths>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(paths.clone()));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        page
    }

    fn report(micros: u64, retransmits: u32) -> PathReport {
        let connect_time = Some(Duration::from_secs(2));
        PathReport { round_trip: Some(Duration::from_micros(micros)), retransmits, connect_time }
    }

    #[test]
    fn a_path_is_encoded_with_exactly_the_documented_names_and_labels() {
        let paths = Arc::new(Paths::new(crate::limits::MAX_PATHS));
        assert!(!page(&paths).contains('{'), "nothing was measured");
        let path = paths.of(&labels("cart"));
        path.observe(&report(100, 0));
        path.observe(&report(101, 3));
        path.observe(&report(5_000_000, 1));
        path.observe(&PathReport::default());
        let page = page(&paths);
        let series = "reporter=\"source\",source_workload=\"cart\",\
                      source_workload_namespace=\"shop\",destination_workload=\"cache\",\
                      destination_workload_namespace=\"shop\"";
        for line in [
            format!("fairlead_tcp_round_trip_seconds_sum{{{series}}} 5.000201"),
            format!("fairlead_tcp_round_trip_seconds_count{{{series}}} 3"),
            format!("fairlead_tcp_round_trip_seconds_bucket{{le=\"0.0001\",{series}}} 1"),
            format!("fairlead_tcp_round_trip_seconds_bucket{{le=\"0.0003\",{series}}} 2"),
            format!("fairlead_tcp_round_trip_seconds_bucket{{le=\"3.0\",{series}}} 2"),
            format!("fairlead_tcp_round_trip_seconds_bucket{{le=\"+Inf\",{series}}} 3"),
            format!("fairlead_tcp_connect_seconds_bucket{{le=\"1.0\",{series}}} 0"),
            format!("fairlead_tcp_connect_seconds_bucket{{le=\"3.0\",{series}}} 3"),
            format!("fairlead_tcp_connect_seconds_sum{{{series}}} 6.0"),
            format!("fairlead_tcp_retransmitted_segments_total{{{series}}} 4"),
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\nin\n{page}");
        }
    }

    #[test]
    fn paths_beyond_the_bound_are_counted_in_one() {
        let paths = Arc::new(Paths::new(2));
        for name in ["a", "b", "c", "d", "a"] {
            paths.of(&labels(name)).observe(&report(1, 1));
        }
        let page = page(&paths);
        let retransmits = |source: &str| {
            let part = format!("retransmitted_segments_total{{reporter=\"{source}");
            let lines = page.lines().filter(|line| line.contains(&part));
            lines.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut known = retransmits("source");
        known.sort_unstable();
        assert_eq!(known, ["1", "2"]);
        assert_eq!(retransmits("overflow"), ["2"]);
    }
}
