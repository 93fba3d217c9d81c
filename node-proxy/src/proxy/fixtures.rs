//! A proxy with threads and pods, without capture and without certificates.

use std::{net::TcpListener, sync::Arc};

use fairlead_ebpf::NetnsCookie;
use futures_util::future::{BoxFuture, pending};
use mesh_api::identity::Identity;
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    node::{Node, ProxyOptions},
    pod::{OpenConnections, Pod},
    ready_sockets::ReadySockets,
};
use crate::{
    identity::{CaError, CertificateAuthority, Clock, IdentityStore, Svid},
    link::{listeners::PodListeners, message::PodId},
    telemetry::{logging::DroppedLines, metrics::NodeMetrics},
};

/// Issues nothing, ever.
#[derive(Debug)]
struct Silent;

impl CertificateAuthority for Silent {
    fn issue<'a>(&'a self, _: &'a Identity) -> BoxFuture<'a, Result<Svid, CaError>> {
        Box::pin(pending())
    }
}

/// Makes a proxy that knows nothing of the mesh.
pub(super) fn node() -> Arc<Node> {
    let options = ProxyOptions { same_node_encryption: true };
    Arc::new(Node::new(options, Arc::new(NodeMetrics::new(DroppedLines::default()))))
}

/// Makes a source of certificates that has none.
pub(super) fn identities() -> IdentityStore {
    IdentityStore::new(Arc::new(Silent), Clock::system(), Handle::current())
}

/// Makes a pod that the mesh does not know.
pub(super) fn pod(netns: u64) -> Arc<Pod> {
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    Arc::new(Pod {
        id: NetnsCookie(netns),
        name: "cart".into(),
        svid: identities().acquire(&identity),
        identity,
        addresses: Vec::new(),
        sockets: ReadySockets::new(PodId { netns, enrolment: 1 }, mpsc::channel(1).0),
        connections: OpenConnections::new(),
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
