//! What a control plane does in its cluster, besides following it.

mod automatic;
mod followed;
pub mod lease;
mod publish;
mod status;
mod waypoints;
mod webhook;

use std::{fmt, sync::Arc, time::Duration};

use kube::{Client, Config, config::InferConfigError};

pub use self::lease::{Leadership, Lease, LeaseOptions};
use self::publish::{REVOKED, ROOTS, publish};
pub use self::waypoints::Settings as WaypointSettings;
use crate::{ca::Authority, feed::Standing, telemetry::metrics::Metrics};

/// Longest silence of the API server within an answer. Longer than a watch lasts: one that is silent
/// for so long has lost its server.
const SILENCE: Duration = Duration::from_mins(5);

/// A cluster, and this process among the replicas in it.
pub struct Cluster {
    /// The way to its API server.
    pub client: Client,
    /// Tells whether this process leads.
    pub leadership: Leadership,
    lease: Lease,
    /// Name of the webhook's configuration.
    webhook: String,
    /// What the status of objects is to say.
    standing: Standing,
    /// How waypoints are made.
    waypoints: WaypointSettings,
}

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing says where it is.
    #[error(
        "no cluster: set KUBECONFIG to a file that kubectl can use, or run in a pod with a service \
         account ({0})"
    )]
    Unknown(#[from] InferConfigError),
    /// What says where it is cannot be used.
    #[error("cannot use the cluster's configuration: {0}")]
    Client(#[from] kube::Error),
}

/// Finds the cluster as kubectl does, or in a pod by what is mounted there.
pub async fn connect() -> Result<Client, ConnectError> {
    let mut config = Config::infer().await?;
    config.read_timeout = Some(SILENCE);
    Ok(Client::try_from(config)?)
}

// === impl Cluster ===

impl Cluster {
    /// Takes part as a replica; `webhook` names the configuration of the admission webhook. Nothing
    /// is asked yet.
    pub fn new(
        client: Client,
        lease: LeaseOptions,
        webhook: String,
        standing: Standing,
        waypoints: WaypointSettings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let lease = Lease::new(client.clone(), lease, metrics);
        Self { client, leadership: lease.leadership(), lease, webhook, standing, waypoints }
    }

    /// Leads whenever it can, until `stop` is done.
    pub async fn run(self, authority: Arc<Authority>, stop: impl Future<Output = ()>) {
        let Self { client, leadership, lease, webhook, standing, waypoints } = self;
        let roots = || authority.bundle().roots_pem().to_owned();
        let published = || Some(authority.bundle().roots_pem().to_owned());
        let revoked = || authority.bundle().crl().map(str::to_owned);
        let publishing = async || {
            tokio::join!(
                publish(&client, ROOTS, published, authority.replaced()),
                publish(&client, REVOKED, revoked, authority.replaced()),
                webhook::publish_roots(&client, &webhook, roots, authority.replaced()),
                status::publish(&client, standing.clone()),
                waypoints::deploy(&client, &waypoints),
                automatic::provide(&client, standing.clone()),
            );
        };
        tokio::select! {
            () = lease.hold(stop) => {}
            () = leadership.while_leading(publishing) => {}
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("lease", &self.lease).finish_non_exhaustive()
    }
}
