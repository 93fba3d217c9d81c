//! A proxy's side of the conversation, without its data path.

use std::{num::NonZeroU32, path::PathBuf, sync::Arc};

use fairlead_component::{clock::Clock, logging::DroppedLines};
use fairlead_node::{
    discovery::{self, Discovery, EVENT_QUEUE},
    limits::{DEFAULT_MAX_PEER_CONNECTIONS, DEFAULT_MAX_PEER_TUNNELS, DEFAULT_MAX_POD_CONNECTIONS},
    proxy::node::{Node, ProxyOptions},
    state::{MeshState, OutboundPolicy},
    telemetry::{metrics::NodeMetrics, readiness::Readiness},
};
use fairlead_tunnel::{
    identity::{IdentityStore, RemoteAuthority},
    tls::Revocations,
};
use mesh_api::{
    control_plane::ControlPlane,
    workload::{Network, NodeName},
    xds_client::{self, Introduction, Role, Session, introduce, mesh_subscriptions},
};
use tempfile::TempDir;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    istiod::{Istiod, SOON},
    pki::Root,
};

/// Lifetime of the certificates that are asked for.
pub(crate) const TTL: std::time::Duration = std::time::Duration::from_hours(1);

/// A proxy and its control plane.
pub(crate) struct Scene {
    pub(crate) istiod: Istiod,
    pub(crate) node: Arc<Node>,
    pub(crate) readiness: Readiness,
    pub(crate) identities: IdentityStore,
    pub(crate) roots: PathBuf,
    pub(crate) token: PathBuf,
    _dir: TempDir,
}

impl Scene {
    /// Starts both; the proxy knows the root and has the token `first`.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (roots, token) = (dir.path().join("root-cert.pem"), dir.path().join("token"));
        let root = Root::new("first");
        root.write(&roots);
        std::fs::write(&token, "first\n").unwrap();
        let istiod = Istiod::start(root.server("istiod.test")).await;
        let control_plane = ControlPlane {
            address: format!("https://{}", istiod.address).parse().unwrap(),
            server_name: Some("istiod.test".try_into().unwrap()),
            roots: roots.clone(),
            token: token.clone(),
            cluster_id: "c1".to_owned(),
        };
        let clock = Clock::system();
        let authority = RemoteAuthority::new(control_plane.clone(), TTL, clock.clone());
        let (authority, revocations) = (Arc::new(authority), Revocations::none());
        let identities = IdentityStore::new(authority, clock, revocations, Handle::current());
        let options = ProxyOptions {
            naming: None,
            name_servers: Vec::new(),
            same_node_encryption: false,
            outbound: OutboundPolicy::default(),
            access_log_sample: NonZeroU32::MIN,
            idle_timeout: None,
            max_pod_connections: DEFAULT_MAX_POD_CONNECTIONS,
            max_peer_connections: DEFAULT_MAX_PEER_CONNECTIONS,
            max_peer_tunnels: DEFAULT_MAX_PEER_TUNNELS,
        };
        let metrics = Arc::new(NodeMetrics::new(DroppedLines::default()));
        let node = Arc::new(Node::new(options, metrics));
        let readiness = Readiness::default();
        let (node_name, network) = (NodeName("n1".into()), Network::default());
        let introduction = Introduction {
            role: Role::NodeProxy,
            node_name: node_name.clone(),
            pod_name: "p".to_owned(),
            pod_namespace: "istio-system".to_owned(),
            address: None,
            cluster_id: "c1".to_owned(),
            network: network.clone(),
        };
        let discovery = Discovery::new(discovery::Parts {
            node: node.clone(),
            identities: identities.clone(),
            node_name,
            network,
            known: readiness.gate("configuration"),
            configured: watch::Sender::new(false),
        });
        let session = Session::new(introduce(&introduction), mesh_subscriptions());
        let (send, events) = mpsc::channel(EVENT_QUEUE);
        tokio::spawn(xds_client::run(control_plane, session, send));
        tokio::spawn(discovery.follow(events));
        Self { istiod, node, readiness, identities, roots, token, _dir: dir }
    }

    /// Waits until what is known of the mesh is as `holds` says.
    pub(crate) async fn until(&self, holds: impl Fn(&MeshState) -> bool) {
        let mut changes = self.node.changes();
        let arrives = async {
            while !holds(&self.node.state()) {
                changes.changed().await.unwrap();
            }
        };
        timeout(SOON, arrives).await.expect("a change of the mesh");
    }

    /// Returns whether a workload has this address.
    pub(crate) fn knows(&self, address: [u8; 4]) -> bool {
        self.node.state().workload_at(address.into()).is_some()
    }
}
