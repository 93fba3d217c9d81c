//! One of several control planes leads: it alone writes to the cluster. All serve.
//!
//! The lease is an object of the cluster (`coordination.k8s.io`), which a leader renews. Each write
//! says of which version it is the successor, so that of two candidates one is refused.

mod election;
mod leadership;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Client,
    api::{Api, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use self::election::{Election, Move, Record, Timing};
pub use self::leadership::Leadership;
use crate::telemetry::metrics::Metrics;

/// Time without a sign of the leader after which another one takes over, unless configured. An API
/// server that takes a third of it to answer does not end a leadership.
pub const DEFAULT_LEASE_DURATION: Duration = Duration::from_secs(30);

/// Shortest such time: objects say it in whole seconds.
pub const MIN_LEASE_DURATION: Duration = Duration::from_secs(1);

/// Time to give the lease back when the process ends.
const RELEASE_TIME: Duration = Duration::from_secs(2);

/// Share of the pause between attempts by which it is lengthened at random, so that candidates do
/// not ask together.
const JITTER: f64 = 0.2;

/// Which lease, and who wants it.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Namespace of the lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of this candidate, different from that of every other one.
    pub candidate: String,
    /// Time without a sign of the leader after which another one takes over.
    pub duration: Duration,
}

/// A lease that this process wants to hold.
pub struct Lease {
    leases: Api<Object>,
    name: String,
    election: Election,
    leads_until: watch::Sender<Option<Instant>>,
    metrics: Arc<Metrics>,
}

// === impl Lease ===

impl Lease {
    /// Names a lease of a cluster; nothing is asked yet.
    pub fn new(client: Client, options: LeaseOptions, metrics: Arc<Metrics>) -> Self {
        let LeaseOptions { namespace, name, candidate, duration } = options;
        Self {
            leases: Api::namespaced(client, &namespace),
            name,
            election: Election::new(candidate, Timing::of(duration)),
            leads_until: watch::Sender::new(None),
            metrics,
        }
    }

    /// Returns what tells whether this process leads.
    pub fn leadership(&self) -> Leadership {
        Leadership::new(self.leads_until.subscribe())
    }

    /// Takes and holds the lease whenever it can, until `stop` is done; then gives it back.
    pub async fn hold(mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.compete() => {}
            () = stop => {}
        }
        let own = self.election.own(Instant::now()).cloned();
        self.election.stop();
        self.publish();
        if let Some(own) = own {
            let released = Record { holder: String::new(), ..own };
            // Without it the others only wait for longer.
            let _ = timeout(RELEASE_TIME, self.write(&released)).await;
        }
    }

    async fn compete(&mut self) {
        loop {
            let started = Instant::now();
            let Timing { leading, pause, .. } = self.election.timing();
            match timeout(leading, self.attempt()).await {
                // Every replica asks all the time, whatever else happens in the cluster.
                Ok(Ok(())) => self.metrics.cluster_answered(),
                Ok(Err(error)) => {
                    warn!(
                        lease = self.name,
                        error = &error as &dyn Error,
                        "cannot ask for the lease"
                    );
                }
                Err(_) => {
                    warn!(
                        lease = self.name,
                        error = "no answer in time",
                        "cannot ask for the lease"
                    );
                }
            }
            self.publish();
            let pause = pause.mul_f64(1.0 + JITTER * rand::random::<f64>());
            // Counted from the attempt's beginning: a slow server must not make renewals rare.
            sleep(pause.saturating_sub(started.elapsed())).await;
        }
    }

    async fn attempt(&mut self) -> Result<(), kube::Error> {
        let record = match self.election.own(Instant::now()) {
            Some(own) => own.clone(),
            None => match self.look().await? {
                Some(record) => record,
                None => return Ok(()),
            },
        };
        let asked = Instant::now();
        match self.write(&record).await {
            Ok(record) => self.election.wrote(record, asked),
            Err(kube::Error::Api(status)) if status.code == StatusCode::CONFLICT.as_u16() => {
                self.election.was_overtaken();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks who has the lease; returns what to write, if it is to be written.
    async fn look(&mut self) -> Result<Option<Record>, kube::Error> {
        let seen = self.leases.get_opt(&self.name).await?.map(|lease| record(&lease));
        let current = seen.clone();
        let next = self.election.see(seen, Instant::now());
        let me = self.election.me().to_owned();
        Ok(match (next, current) {
            (Move::Wait, _) => None,
            (Move::Renew, current) => current,
            (Move::Take, Some(old)) => {
                let transitions = old.transitions.saturating_add(1);
                Some(Record { holder: me, acquired: None, transitions, ..old })
            }
            (Move::Create | Move::Take, _) => Some(Record {
                holder: me,
                duration: None,
                acquired: None,
                transitions: 0,
                version: String::new(),
            }),
        })
    }

    /// Writes a lease in place of the version that `record` names; makes it if that names none.
    async fn write(&self, record: &Record) -> Result<Record, kube::Error> {
        let duration = self.election.timing().duration;
        // The object has whole seconds; others wait rather for too long.
        let duration = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
        let now = MicroTime(Timestamp::now());
        let lease = Object {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: (!record.version.is_empty()).then(|| record.version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(record.holder.clone()),
                lease_duration_seconds: i32::try_from(duration).ok(),
                lease_transitions: Some(record.transitions),
                acquire_time: record.acquired.clone().or_else(|| Some(now.clone())),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams::default();
        let written = if record.version.is_empty() {
            self.leases.create(&params, &lease).await?
        } else {
            self.leases.replace(&self.name, &params, &lease).await?
        };
        Ok(self::record(&written))
    }

    fn publish(&self) {
        let until = self.election.leads_until();
        let before = self.leads_until.send_replace(until);
        let (leads, led) = (is_to_come(until), before.is_some());
        if leads && !led {
            info!(lease = self.name, candidate = self.election.me(), "this replica leads");
        } else if led && !leads {
            info!(lease = self.name, "this replica does not lead any more");
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("election", &self.election).finish_non_exhaustive()
    }
}

fn is_to_come(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

fn record(lease: &Object) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: seconds.map(Duration::from_secs),
        acquired: spec.acquire_time,
        transitions: spec.lease_transitions.unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
