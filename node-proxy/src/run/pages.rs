//! What the proxy shows operators.

use std::{net::TcpListener as StdListener, sync::Arc, time::SystemTime};

use anyhow::Result;
use fairlead_component::logging::Levels;
use fairlead_node::{
    link::listeners::EndpointListeners,
    proxy::{dump, node::Node, worker::Workers},
    telemetry::{
        readiness::Readiness,
        server::{Admin, serve_admin, serve_metrics, serve_readiness},
    },
};
use fairlead_tunnel::identity::{self, IdentityStore};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
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
            "certificates": identity::dump::certificates(
                &self.identities.certificates(),
                SystemTime::now(),
            ),
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
