//! Endpoints, and requests that are on their way to one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use mesh_api::workload::{Workload, WorkloadUid};

use super::{outlier::Standing, policy::Policy};

/// Labels of a workload.
pub type Labels = BTreeMap<String, String>;

/// A workload with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// What the mesh knows of it.
    pub workload: Arc<Workload>,
    /// Its labels.
    pub labels: Arc<Labels>,
}

/// Where a service is provided.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// By whom.
    pub instance: Instance,
    /// At which address.
    pub address: SocketAddr,
    /// Whether it takes requests.
    pub ready: bool,
}

/// Key of an endpoint: the same one after an update.
pub(super) type EndpointId = (WorkloadUid, SocketAddr);

/// An endpoint in a cluster.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    pub(super) standing: Arc<Standing>,
    pub(super) policy: Arc<Policy>,
}

/// A request on its way to an endpoint, which counts as active there while this lives.
#[derive(Debug)]
pub struct Picked {
    host: Arc<Host>,
    tier: usize,
}

/// An endpoint that a request was sent to in vain.
#[derive(Clone, Debug)]
pub struct Tried {
    standing: Arc<Standing>,
    pub(super) tier: usize,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this status; for gRPC, the status that stands for its own.
    Response(u16),
    /// A connection was made, for traffic that has no statuses.
    Connected,
    /// No connection could be made.
    ConnectFailure,
    /// There was no answer in time.
    Timeout,
    /// The connection or the stream broke before there was an answer.
    Reset,
    /// The client did not wait for it: that says nothing of the endpoint.
    Abandoned,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn id(&self) -> EndpointId {
        (self.instance.workload.uid.clone(), self.address)
    }

    /// Returns its share, relative to others.
    pub(super) fn weight(&self) -> u32 {
        self.instance.workload.capacity
    }
}

// === impl Picked ===

impl Picked {
    pub(super) fn new(host: Arc<Host>, tier: usize) -> Self {
        host.standing.active.fetch_add(1, Relaxed);
        Self { host, tier }
    }

    /// Returns where the request goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.host.endpoint
    }

    /// Returns what has the next try go elsewhere.
    pub fn tried(&self) -> Tried {
        Tried { standing: self.host.standing.clone(), tier: self.tier }
    }

    /// Takes what became of the request. Returns for how long the endpoint is ejected, if this is
    /// what does it.
    pub fn finish(self, outcome: Outcome, now: Instant) -> Option<Duration> {
        let outlier = self.host.policy.outlier.as_ref()?;
        self.host.standing.record(outcome, outlier, now)
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.host.standing.active.fetch_sub(1, Relaxed);
    }
}

// === impl Tried ===

impl Tried {
    pub(super) fn is(&self, host: &Host) -> bool {
        Arc::ptr_eq(&self.standing, &host.standing)
    }
}
