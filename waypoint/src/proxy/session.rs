//! A connection whose protocol is not looked at, until it has ended: then it is counted and logged, once.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{idle::Passed, inbound::Connection, upstream::UpstreamError};
use crate::{
    balance::Instance,
    mesh::Target,
    policy::Denied,
    route::{Flag, Flags},
    telemetry::{Bytes, Record, RequestLabels, Side},
};

/// A connection with what becomes of it.
#[derive(Debug)]
pub(super) struct Session {
    connection: Rc<Connection>,
    start: SystemTime,
    started: Instant,
    is_opened: bool,
    /// What has been counted of its bytes.
    reported: Bytes,
    /// What it goes to.
    pub(super) cluster: Option<Arc<str>>,
    /// The endpoint.
    pub(super) endpoint: Option<(Instance, SocketAddr)>,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// A policy refused it.
    Denied(Denied),
    /// There was nowhere to go, or not now.
    Failed(Flag),
    /// The endpoint did not take it.
    Unreachable(UpstreamError),
    /// After its bytes.
    Passed(Passed, Bytes),
    /// After some of them: it had lasted for as long as it may.
    Overdue(Bytes),
    /// After some of them: a policy came that refuses it.
    Revoked(Denied, Bytes),
}

// === impl Session ===

impl Session {
    pub(super) fn new(connection: &Rc<Connection>) -> Self {
        Self {
            connection: connection.clone(),
            start: SystemTime::now(),
            started: Instant::now(),
            is_opened: false,
            reported: Bytes::default(),
            cluster: None,
            endpoint: None,
        }
    }

    /// Counts that its bytes begin to pass.
    pub(super) fn opened(&mut self) {
        self.is_opened = true;
        let labels = self.labels(Flags::default());
        self.connection.worker.shared.metrics.opened(&labels);
    }

    /// Counts what has passed so far.
    pub(super) fn report(&mut self, bytes: Bytes) {
        let since = self.since_report(bytes);
        if since != Bytes::default() {
            let labels = self.labels(Flags::default());
            self.connection.worker.shared.metrics.passed(&labels, since);
        }
        self.reported = bytes;
    }

    /// Counts and logs how it ended.
    pub(super) fn end(&self, ending: &Ending) {
        let shared = &self.connection.worker.shared;
        let bytes = ending.bytes();
        let flags = ending.flags();
        let labels = self.labels(flags);
        if !self.is_opened {
            shared.metrics.opened(&labels);
        }
        if ending.is_idle() {
            shared.metrics.limit("tcp_idle").inc();
        }
        shared.metrics.closed(&labels, self.since_report(bytes));
        let (termination, failure) = (ending.termination(), ending.failure());
        shared.access_log.write(&Record {
            start: self.start,
            request: None,
            flags,
            termination: termination.as_deref(),
            received: bytes.received,
            sent: bytes.sent,
            duration: self.started.elapsed(),
            upstream_host: self.endpoint.as_ref().map(|(_, address)| *address),
            upstream_cluster: self.cluster.as_deref(),
            upstream_failure: failure.as_deref(),
            local_address: self.connection.address,
            remote_address: self.connection.client,
            route: None,
        });
    }

    fn since_report(&self, Bytes { sent, received }: Bytes) -> Bytes {
        Bytes { sent: sent - self.reported.sent, received: received - self.reported.received }
    }

    fn labels(&self, flags: Flags) -> RequestLabels<'_> {
        let destination = self.endpoint.as_ref().map(|(instance, _)| &*instance.workload);
        RequestLabels {
            source: Side {
                workload: self.connection.client_workload.as_deref(),
                principal: Some(&self.connection.source),
            },
            destination: Side {
                workload: destination,
                principal: destination.map(|workload| &workload.identity),
            },
            service: match &self.connection.target {
                Target::Service(view, _) => Some((&view.service().key, &*view.service().name)),
                Target::Workload(..) => None,
            },
            protocol: "tcp",
            status: None,
            grpc_status: None,
            flags,
        }
    }
}

// === impl Ending ===

impl Ending {
    fn flags(&self) -> Flags {
        match self {
            // What is broken is broken for both, and each sees to its own end.
            Self::Denied(_)
            | Self::Revoked(..)
            | Self::Passed(Passed::Whole | Passed::Broken, _) => Flags::default(),
            Self::Failed(flag) => Flags::default().with(*flag),
            Self::Unreachable(_) => Flags::default().with(Flag::UpstreamConnectionFailure),
            Self::Passed(Passed::Idle, _) => Flags::default().with(Flag::StreamIdleTimeout),
            Self::Overdue(_) => Flags::default().with(Flag::DurationTimeout),
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self, Self::Passed(Passed::Idle, _))
    }

    fn bytes(&self) -> Bytes {
        match self {
            Self::Passed(_, bytes) | Self::Overdue(bytes) | Self::Revoked(_, bytes) => *bytes,
            Self::Denied(_) | Self::Failed(_) | Self::Unreachable(_) => Bytes::default(),
        }
    }

    /// Returns why it was ended here.
    fn termination(&self) -> Option<String> {
        match self {
            Self::Denied(denied) | Self::Revoked(denied, _) => Some(denied.to_string()),
            Self::Failed(_) | Self::Unreachable(_) | Self::Passed(..) | Self::Overdue(_) => None,
        }
    }

    /// Returns why there is no connection to the endpoint.
    fn failure(&self) -> Option<String> {
        match self {
            Self::Unreachable(error) => Some(error.to_string()),
            Self::Denied(_)
            | Self::Revoked(..)
            | Self::Failed(_)
            | Self::Passed(..)
            | Self::Overdue(_) => None,
        }
    }
}
