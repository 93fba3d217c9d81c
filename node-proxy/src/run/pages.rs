//! What the proxy shows operators.

use std::{net::TcpListener as StdListener, sync::Arc, time::Duration};

use anyhow::Result;
use fairlead_component::logging::Levels;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};

use fairlead_node::{
    identity::IdentityStore,
    link::listeners::EndpointListeners,
    proxy::{dump, node::Node, worker::Workers},
    telemetry::{
        readiness::Readiness,
        server::{Admin, serve_admin, serve_metrics, serve_readiness},
    },
};

/// What the endpoints for operators show.
pub(super) struct Pages<'a> {
    pub(super) node_name: &'a str,
    pub(super) readiness: &'a Readiness,
    pub(super) node: &'a Node,
    pub(super) workers: &'a Workers,
    pub(super) identities: &'a IdentityStore,
    pub(super) levels: Levels,
    pub(super) quit: Arc<Notify>,
}

// === impl Pages ===

impl Pages<'_> {
    /// Serves the listening sockets that are given first.
    pub(super) async fn serve(self, mut given: mpsc::Receiver<EndpointListeners>) -> Result<()> {
        let Some(EndpointListeners { metrics, readiness, admin }) = given.recv().await else {
            return std::future::pending().await;
        };
        let (metrics, readiness, admin) = (adopt(metrics)?, adopt(readiness)?, adopt(admin)?);
        let counters = &*self.node.metrics;
        tokio::select! {
            never = serve_metrics(&metrics, counters) => never,
            never = serve_readiness(&readiness, self.readiness, counters) => never,
            never = serve_admin(&admin, &self, counters) => never,
        }
    }
}

impl Admin for Pages<'_> {
    async fn config_dump(&self) -> serde_json::Value {
        let connections = self.workers.list(dump::MAX_LISTED).await;
        let state = self.node.state();
        json!({
            "node": self.node_name,
            "version": env!("CARGO_PKG_VERSION"),
            "workloads": dump::workloads(&state),
            "services": dump::services(&state),
            "policies": dump::policies(&state),
            "certificates": certificates(self.identities),
            "workloadState": dump::connections(connections),
        })
    }

    fn levels(&self) -> &Levels {
        &self.levels
    }

    fn quit(&self) {
        self.quit.notify_one();
    }
}

fn adopt(listener: StdListener) -> Result<TcpListener> {
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}

/// Certificates for the admin output: never a key.
fn certificates(identities: &IdentityStore) -> serde_json::Value {
    let seconds = |t: std::time::SystemTime| {
        t.duration_since(std::time::UNIX_EPOCH).map_or(0, |d: Duration| d.as_secs())
    };
    identities
        .certificates()
        .into_iter()
        .map(|certificate| {
            json!({
                "identity": certificate.identity.to_string(),
                "serialNumber": certificate.serial,
                "validFrom": certificate.validity.map(|v| seconds(v.not_before)),
                "expirationTime": certificate.validity.map(|v| seconds(v.not_after)),
                "lastError": certificate.last_error,
            })
        })
        .collect()
}
