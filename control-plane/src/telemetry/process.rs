//! What this process uses of the machine, from `/proc`.

use std::{fmt, fs, time::Instant};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Units of processor time in `/proc/self/stat`, a second; fixed in Linux's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Position of the processor times among the fields after the process's name.
const USER_TIME_FIELD: usize = 11;

/// Collects what this process uses.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    started: Instant,
}

// === impl ProcessCollector ===

impl ProcessCollector {
    pub(super) fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "istiod_uptime_seconds",
            "Seconds since this process started",
            self.started.elapsed().as_secs_f64(),
        )?;
        if let Some(bytes) = memory("VmRSS:") {
            gauge("process_resident_memory_bytes", "Memory in use", bytes)?;
        }
        if let Some(bytes) = memory("VmSize:") {
            gauge("process_virtual_memory_bytes", "Address space in use", bytes)?;
        }
        let Some(seconds) = processor_seconds() else { return Ok(()) };
        let counter = ConstCounter::new(seconds);
        counter.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time used",
            None,
            counter.metric_type(),
        )?)
    }
}

/// Returns a size from `/proc/self/status`, in bytes.
fn memory(field: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn processor_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold spaces and parentheses; it ends with the last of them.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(USER_TIME_FIELD).map(str::parse::<f64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}
