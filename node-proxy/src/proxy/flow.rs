//! What is counted and said about one connection.

use std::{cell::Cell, net::SocketAddr, sync::Arc, time::Instant};

use tokio::net::TcpStream;

use crate::{
    hbone::transport::PathReport,
    sys::socket::path_stats,
    telemetry::{
        access_log::ConnectionRecord,
        metrics::{ConnectionCounters, ConnectionLabels, Reporter, WorkerMetrics},
        reason::CloseReason,
    },
};

/// One side's account of a connection, from its start to its one line in the access log.
#[derive(Debug)]
pub(super) struct FlowLog {
    labels: ConnectionLabels,
    counters: Arc<ConnectionCounters>,
    addresses: Addresses,
    started: Instant,
    ended: bool,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
}

/// Addresses that a connection is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// The client's.
    pub(super) source: SocketAddr,
    /// Where the bytes go; the HBONE port if they go through a tunnel.
    pub(super) destination: SocketAddr,
    /// What the tunnel was asked for.
    pub(super) hbone: Option<SocketAddr>,
}

/// Counts the bytes of a connection for the one or two sides that this process acts for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter<'a> {
    pub(super) first: &'a FlowLog,
    pub(super) second: Option<&'a FlowLog>,
}

// === impl FlowLog ===

impl FlowLog {
    /// Counts the connection as opened. `started` is when it was accepted.
    pub(super) fn open(
        metrics: &WorkerMetrics,
        labels: ConnectionLabels,
        addresses: Addresses,
        started: Instant,
    ) -> Self {
        let counters = metrics.connection(&labels);
        counters.opened();
        let (request_bytes, response_bytes) = (Cell::new(0), Cell::new(0));
        Self { labels, counters, addresses, started, ended: false, request_bytes, response_bytes }
    }

    /// Counts the connection as closed and writes its line.
    pub(super) fn close(mut self, reason: &CloseReason) {
        self.end(reason);
    }

    /// Accounts for what the kernel measured between the nodes of the two ends.
    pub(super) fn measured(&self, report: &PathReport) {
        self.counters.measured(report);
    }

    fn end(&mut self, reason: &CloseReason) {
        self.ended = true;
        self.counters.closed(reason);
        ConnectionRecord {
            labels: &self.labels,
            src_addr: self.addresses.source,
            dst_addr: self.addresses.destination,
            hbone_addr: self.addresses.hbone,
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            duration: self.started.elapsed(),
            reason,
        }
        .emit();
    }

    fn request(&self, bytes: u64) {
        self.counters.request_bytes(bytes);
        self.request_bytes.set(self.request_bytes.get() + bytes);
    }

    fn response(&self, bytes: u64) {
        self.counters.response_bytes(bytes);
        self.response_bytes.set(self.response_bytes.get() + bytes);
    }
}

impl Drop for FlowLog {
    /// A connection whose task was ended from outside has its line too.
    fn drop(&mut self) {
        if !self.ended {
            self.end(&CloseReason::Drained);
        }
    }
}

// === impl Meter ===

impl Meter<'_> {
    /// Counts bytes from the client to the server.
    pub(super) fn request(&self, bytes: u64) {
        self.first.request(bytes);
        if let Some(second) = self.second {
            second.request(bytes);
        }
    }

    /// Counts bytes from the server to the client.
    pub(super) fn response(&self, bytes: u64) {
        self.first.response(bytes);
        if let Some(second) = self.second {
            second.response(bytes);
        }
    }
}

impl Meter<'_> {
    /// Accounts for how the packets between the nodes fared, before the sockets close. No packet of a
    /// connection within a node has left it.
    pub(super) fn measure(&self, client: &TcpStream, server: &TcpStream) {
        if self.second.is_some() {
            return;
        }
        let far = match self.first.labels.reporter {
            Reporter::Source => server,
            Reporter::Destination => client,
        };
        if let Ok(stats) = path_stats(far) {
            let (round_trip, retransmits) = (stats.round_trip, stats.retransmits);
            self.first.measured(&PathReport { round_trip, retransmits, connect_time: None });
        }
    }
}

impl<'a> From<&'a FlowLog> for Meter<'a> {
    fn from(first: &'a FlowLog) -> Self {
        Self { first, second: None }
    }
}
