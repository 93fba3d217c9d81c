//! What the operating system says of this process, under the names that all exporters use.

use std::{
    fmt,
    fs::File,
    io,
    os::{fd::RawFd, unix::fs::FileExt as _},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fairlead_sys::{
    descriptors::count_open,
    memory::{HeapUse, heap_use},
};
use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeVal,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet},
    metrics::MetricType,
};

/// Room for the file below, in bytes; it has some 1,500, and more with many processors.
const STATUS_BYTES: usize = 16 * 1024;

/// A file about this process. Held open, since a process that is confined has no `/proc`; a
/// directory there would be a way out.
const STATUS: &str = "/proc/self/status";

/// This process, as the operating system sees it.
#[derive(Debug)]
pub struct Process {
    status: Mutex<File>,
    started: Duration,
}

/// What is read from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    /// Every descriptor is below this number.
    descriptors: RawFd,
    resident_bytes: u64,
}

// === impl Process ===

impl Process {
    /// Looks at this process, which has just started and is not confined yet.
    pub fn open() -> io::Result<Self> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { status: Mutex::new(File::open(STATUS)?), started })
    }

    fn status(&self) -> Option<Status> {
        let mut text = vec![0; STATUS_BYTES];
        let length = {
            let file = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            file.read_at(&mut text, 0).ok()?
        };
        Status::parse(&String::from_utf8_lossy(text.get(..length)?))
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let started = self.started.as_secs_f64();
        gauge(
            &mut encoder,
            "process_start_time_seconds",
            "When the process was started, in seconds since 1970",
            &started,
        )?;
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let seconds = seconds(usage.user_time()) + seconds(usage.system_time());
            let (name, help) = ("process_cpu_seconds", "Time that processors spent on the process");
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        if let Ok((most, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let help = "How many descriptors the process may have open";
            gauge(&mut encoder, "process_max_fds", help, &most)?;
        }
        if let Some(Status { descriptors, resident_bytes }) = self.status() {
            let (name, help) = ("process_resident_memory_bytes", "Memory of the process");
            gauge(&mut encoder, name, help, &resident_bytes)?;
            if let Ok(open) = count_open(0..descriptors) {
                let help = "How many descriptors the process has open";
                gauge(&mut encoder, "process_open_fds", help, &(open as u64))?;
            }
        }
        encode_heap(&mut encoder)
    }
}

/// Tells memory that is in use from what was freed and is kept for later.
fn encode_heap(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let HeapUse { used, free, mapped } = heap_use();
    let (name, help) = (
        "fairlead_heap_bytes",
        "Memory that the process has allocated: used and freed in heaps, and mapped as large pieces",
    );
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (state, bytes) in [("used", used), ("free", free), ("mapped", mapped)] {
        metric.encode_family(&[("state", state)])?.encode_gauge(&(bytes as u64))?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &impl EncodeGaugeValue,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)
}

fn seconds(time: TimeVal) -> f64 {
    let (seconds, microseconds) = (time.tv_sec(), time.tv_usec());
    let whole = Duration::from_secs(seconds.try_into().unwrap_or_default());
    (whole + Duration::from_micros(microseconds.try_into().unwrap_or_default())).as_secs_f64()
}

// === impl Status ===

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let number = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            value.split_whitespace().next()?.parse::<u64>().ok()
        };
        let descriptors = RawFd::try_from(number("FDSize")?).ok()?;
        Some(Self { descriptors, resident_bytes: number("VmRSS")?.checked_mul(1024)? })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn the_table_of_descriptors_and_the_memory_are_read() {
        let text = "Name:\tx\nFDSize:\t256\nVmHWM:\t    9 kB\nVmRSS:\t    1540 kB\n";
        let expected = Status { descriptors: 256, resident_bytes: 1540 * 1024 };
        assert_eq!(Status::parse(text), Some(expected));
        for broken in ["", "FDSize:\t256\n", "FDSize:\t-1\nVmRSS:\t1 kB", "FDSize:\nVmRSS:\t1 kB"] {
            assert_eq!(Status::parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn every_scrape_looks_anew() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::open().unwrap()));
        let value = |name: &str| {
            let mut page = String::new();
            text::encode(&mut page, &registry).unwrap();
            let line = page.lines().find(|line| line.split(' ').next() == Some(name));
            let value = line.unwrap_or_else(|| panic!("{name} in {page}")).rsplit(' ').next();
            value.unwrap().parse::<f64>().unwrap()
        };
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..3600.0).contains(&(now - value("process_start_time_seconds"))));
        assert!(value("fairlead_heap_bytes{state=\"used\"}") > 1_000.0);
        let before = value("process_cpu_seconds_total");
        while value("process_cpu_seconds_total") <= before {}
    }
}
