//! The counters of one worker thread: found without a lock, written without contention.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use fairlead_tunnel::hbone::transport::PathReport;

use super::{
    labels::{ConnectionLabels, Reporter},
    paths::Path,
    traffic::Traffic,
};
use crate::telemetry::reason::{CloseReason, ResponseFlags};

/// Counters of one worker thread; only a label set that is new to the thread takes a lock.
#[derive(Debug)]
pub struct WorkerMetrics {
    traffic: Arc<Traffic>,
    known: RefCell<HashMap<Arc<ConnectionLabels>, Arc<ConnectionCounters>>>,
    overflow: Arc<ConnectionCounters>,
    sockets: Arc<Sockets>,
}

/// Counters of the connections of one label set on one thread.
///
/// Aligned so that the counters of two threads never share a cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct ConnectionCounters {
    opened: AtomicU64,
    closed: [AtomicU64; ResponseFlags::ALL.len()],
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    path: Arc<Path>,
}

/// Sockets that one thread has open.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Sockets {
    source: AtomicI64,
    destination: AtomicI64,
}

/// An accepted socket, counted in `istio_tcp_sockets_open` until it is dropped.
#[derive(Debug)]
pub struct OpenSocket {
    sockets: Arc<Sockets>,
    reporter: Reporter,
}

/// Values of [`ConnectionCounters`], summed over threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) opened: u64,
    pub(super) closed: [u64; ResponseFlags::ALL.len()],
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

// === impl WorkerMetrics ===

impl WorkerMetrics {
    pub(super) fn new(traffic: Arc<Traffic>) -> Self {
        let overflow = Arc::new(ConnectionCounters::new(traffic.paths().overflow()));
        let sockets = Arc::default();
        traffic.add_worker(Arc::clone(&overflow), Arc::clone(&sockets));
        Self { traffic, known: RefCell::default(), overflow, sockets }
    }

    /// Returns the counters for connections with these labels.
    pub fn connection(&self, labels: &ConnectionLabels) -> Arc<ConnectionCounters> {
        let mut known = self.known.borrow_mut();
        if let Some(counters) = known.get(labels) {
            return Arc::clone(counters);
        }
        // Label sets beyond the bound are not kept, so that this map is bounded too.
        if known.len() >= self.traffic.max_series() {
            return Arc::clone(&self.overflow);
        }
        let labels = Arc::new(labels.clone());
        let counters = self.traffic.publish(&labels).unwrap_or_else(|| Arc::clone(&self.overflow));
        known.insert(labels, Arc::clone(&counters));
        counters
    }

    /// Counts an accepted socket until the result is dropped.
    pub fn socket(&self, reporter: Reporter) -> OpenSocket {
        self.sockets.of(reporter).fetch_add(1, Relaxed);
        OpenSocket { sockets: Arc::clone(&self.sockets), reporter }
    }
}

// === impl ConnectionCounters ===

impl ConnectionCounters {
    pub(super) fn new(path: Arc<Path>) -> Self {
        Self {
            opened: AtomicU64::default(),
            closed: Default::default(),
            request_bytes: AtomicU64::default(),
            response_bytes: AtomicU64::default(),
            path,
        }
    }

    /// Accounts for what the kernel measured between the nodes of the two ends.
    pub fn measured(&self, report: &PathReport) {
        self.path.observe(report);
    }

    /// Counts a connection that was opened.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// Counts the end of a connection; call it once for each call of [`Self::opened`].
    pub fn closed(&self, reason: &CloseReason) {
        self.closed[reason.response_flags() as usize].fetch_add(1, Relaxed);
    }

    /// Counts bytes copied from the client to the server.
    pub fn request_bytes(&self, bytes: u64) {
        self.request_bytes.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes copied from the server to the client.
    pub fn response_bytes(&self, bytes: u64) {
        self.response_bytes.fetch_add(bytes, Relaxed);
    }
}

// === impl Sockets ===

impl Sockets {
    pub(super) fn of(&self, reporter: Reporter) -> &AtomicI64 {
        match reporter {
            Reporter::Source => &self.source,
            Reporter::Destination => &self.destination,
        }
    }
}

// === impl OpenSocket ===

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.sockets.of(self.reporter).fetch_sub(1, Relaxed);
    }
}

// === impl Totals ===

impl Totals {
    /// Adds the present values of `counters`.
    pub(super) fn add(&mut self, counters: &ConnectionCounters) {
        self.opened += counters.opened.load(Relaxed);
        for (total, closed) in self.closed.iter_mut().zip(&counters.closed) {
            *total += closed.load(Relaxed);
        }
        self.request_bytes += counters.request_bytes.load(Relaxed);
        self.response_bytes += counters.response_bytes.load(Relaxed);
    }
}
