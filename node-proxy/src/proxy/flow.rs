//! What is counted and said about one connection.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use fairlead_sys::socket::path_stats;
use fairlead_tunnel::hbone::transport::PathReport;
use tokio::net::TcpStream;

use super::worker::Worker;
use crate::telemetry::{
    access_log::ConnectionRecord,
    metrics::{ConnectionCounters, ConnectionLabels, Reporter},
    reason::CloseReason,
};

/// One side's account of a connection, from its start to its one line in the access log.
#[derive(Debug)]
pub(super) struct FlowLog {
    flow: Rc<Flow>,
    counters: Arc<ConnectionCounters>,
    /// Whether it has a line also if it ends well.
    sampled: bool,
    ended: bool,
}

/// What is known of a connection while it lasts.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) labels: ConnectionLabels,
    pub(super) addresses: Addresses,
    pub(super) started: Instant,
    pub(super) request_bytes: Cell<u64>,
    pub(super) response_bytes: Cell<u64>,
}

/// Addresses that a connection is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// The client's.
    pub(super) source: SocketAddr,
    /// Where the bytes go; the HBONE port if they go through a tunnel.
    pub(super) destination: SocketAddr,
    /// What the tunnel was asked for; a service behind a gateway by its address, not its name.
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
        worker: &Worker,
        labels: ConnectionLabels,
        addresses: Addresses,
        started: Instant,
    ) -> Self {
        let counters = worker.metrics.connection(&labels);
        counters.opened();
        let sampled = worker.sampling.takes(labels.reporter);
        let (request_bytes, response_bytes) = (Cell::new(0), Cell::new(0));
        let flow = Rc::new(Flow { labels, addresses, started, request_bytes, response_bytes });
        Self { flow, counters, sampled, ended: false }
    }

    /// Returns what is known of the connection.
    pub(super) fn flow(&self) -> &Rc<Flow> {
        &self.flow
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
        if self.sampled || reason.is_failure() {
            self.flow.record(reason).emit();
        }
    }

    fn request(&self, bytes: u64) {
        self.counters.request_bytes(bytes);
        let so_far = &self.flow.request_bytes;
        so_far.set(so_far.get() + bytes);
    }

    fn response(&self, bytes: u64) {
        self.counters.response_bytes(bytes);
        let so_far = &self.flow.response_bytes;
        so_far.set(so_far.get() + bytes);
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

// === impl Flow ===

impl Flow {
    /// Returns how many bytes have passed, both ways.
    pub(super) fn bytes(&self) -> u64 {
        self.request_bytes.get().saturating_add(self.response_bytes.get())
    }

    /// Returns what the access log says when the connection ends for `reason`.
    fn record<'a>(&'a self, reason: &'a CloseReason) -> ConnectionRecord<'a> {
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
        let far = match self.first.flow.labels.reporter {
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
