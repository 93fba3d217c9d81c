//! A proxy with pods and without capture, for tests.

use std::{net::TcpListener, num::NonZeroU32, sync::Arc};

use fairlead_component::logging::DroppedLines;
use fairlead_ebpf::NetnsCookie;
use fairlead_tunnel::identity::IdentityStore;
use tokio::sync::mpsc;

use super::{
    hostnames::Told,
    node::{Node, ProxyOptions},
    pod::{OpenConnections, Peers, Pod},
    ready_sockets::ReadySockets,
};
use crate::{
    limits::{DEFAULT_MAX_PEER_CONNECTIONS, DEFAULT_MAX_PEER_TUNNELS, DEFAULT_MAX_POD_CONNECTIONS},
    link::{listeners::PodListeners, message::PodId},
    state::OutboundPolicy,
    telemetry::metrics::NodeMetrics,
};

/// Returns a proxy that knows nothing.
pub(crate) fn node() -> Arc<Node> {
    let options = ProxyOptions {
        same_node_encryption: false,
        outbound: OutboundPolicy::default(),
        access_log_sample: NonZeroU32::MIN,
        idle_timeout: None,
        max_pod_connections: DEFAULT_MAX_POD_CONNECTIONS,
        max_peer_connections: DEFAULT_MAX_PEER_CONNECTIONS,
        max_peer_tunnels: DEFAULT_MAX_PEER_TUNNELS,
        naming: None,
        name_servers: Vec::new(),
    };
    Arc::new(Node::new(options, Arc::new(NodeMetrics::new(DroppedLines::default()))))
}

/// Returns a pod of namespace `shop` that is enrolled under this name.
pub(super) fn pod(identities: &IdentityStore, name: &str, number: u64) -> Arc<Pod> {
    let identity = format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap();
    let (requests, _) = mpsc::channel(1);
    Arc::new(Pod {
        id: NetnsCookie(number),
        name: name.into(),
        svid: identities.acquire(&identity),
        identity,
        addresses: Vec::new(),
        sockets: ReadySockets::new(PodId { netns: number, enrolment: 1 }, requests),
        told: Told::default(),
        connections: OpenConnections::new(),
        peers: Peers::new(),
    })
}

/// Makes the listening sockets of a pod.
pub(super) fn listeners() -> PodListeners {
    let listen = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    };
    PodListeners { outbound: listen(), inbound_hbone: listen(), inbound_plaintext: listen() }
}
