use std::net::IpAddr;

use fairlead_tunnel::testing::identities;
use mesh_api::{
    config::LocalConfig,
    xds_client::{ADDRESS_TYPE, AUTHORIZATION_TYPE, Change},
};

use super::*;
use crate::{proxy::fixtures, telemetry::readiness::Readiness};

struct Scene {
    node: Arc<Node>,
    readiness: Readiness,
    configured: watch::Receiver<bool>,
    discovery: Discovery,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let (identities, dir) = identities();
        let node = fixtures::node();
        let readiness = Readiness::default();
        let (send, configured) = watch::channel(false);
        let discovery = Discovery::new(Parts {
            node: node.clone(),
            identities,
            node_name: NodeName("n1".into()),
            network: Network::default(),
            known: readiness.gate("configuration"),
            configured: send,
        });
        Self { node, readiness, configured, discovery, _dir: dir }
    }

    fn take(&mut self, type_url: &'static str, change: Option<Change<MeshResource>>, synced: bool) {
        let changes = change.into_iter().collect();
        self.discovery.take(Update { type_url, changes, rejections: Vec::new(), bytes: 7, synced });
    }

    fn knows(&self, address: [u8; 4]) -> bool {
        self.node.state().workload_at(IpAddr::from(address)).is_some()
    }
}

fn workload(uid: &str, address: &str) -> Change<MeshResource> {
    let yaml = format!("workloads: [{{uid: {uid}, namespace: shop, addresses: [{address}]}}]");
    let workload = LocalConfig::parse(&yaml).unwrap().workloads.remove(0);
    Change::Updated(uid.into(), MeshResource::Workload(Box::new(workload)))
}

#[tokio::test]
async fn nothing_is_published_before_every_type_was_answered() {
    let mut scene = Scene::new();
    scene.take(ADDRESS_TYPE, Some(workload("a", "10.0.0.1")), false);
    assert!(!scene.knows([10, 0, 0, 1]));
    assert_eq!(scene.readiness.pending(), ["configuration"]);
    assert!(!*scene.configured.borrow());
    scene.take(AUTHORIZATION_TYPE, None, true);
    assert!(scene.knows([10, 0, 0, 1]));
    assert!(scene.readiness.pending().is_empty());
    assert!(*scene.configured.borrow());
    scene.take(ADDRESS_TYPE, Some(workload("b", "10.0.0.2")), true);
    assert!(scene.knows([10, 0, 0, 2]));
}

#[tokio::test]
async fn a_lost_stream_changes_nothing_but_what_is_counted() {
    let mut scene = Scene::new();
    scene.discovery.connected();
    scene.take(ADDRESS_TYPE, Some(workload("a", "10.0.0.1")), true);
    let shown = scene.node.metrics.encode().unwrap();
    assert!(shown.contains("fairlead_xds_connected 1"), "{shown}");
    scene.discovery.disconnected(&StreamEnd::Complete);
    assert!(scene.knows([10, 0, 0, 1]));
    assert!(scene.readiness.pending().is_empty());
    let shown = scene.node.metrics.encode().unwrap();
    for line in [
        "fairlead_xds_connected 0".to_owned(),
        format!("istio_xds_message_total{{url=\"{ADDRESS_TYPE}\"}} 1"),
        format!("istio_xds_message_bytes_total{{url=\"{ADDRESS_TYPE}\"}} 7"),
        "istio_xds_connection_terminations_total{reason=\"Complete\"} 1".to_owned(),
    ] {
        assert!(shown.contains(&line), "{line}\n{shown}");
    }
}

#[tokio::test]
async fn an_answer_without_a_change_wakes_nobody() {
    let mut scene = Scene::new();
    scene.take(AUTHORIZATION_TYPE, None, true);
    let mut changes = scene.node.changes();
    changes.mark_unchanged();
    scene.take(AUTHORIZATION_TYPE, None, true);
    assert!(!changes.has_changed().unwrap());
    scene.take(ADDRESS_TYPE, Some(workload("a", "10.0.0.1")), true);
    assert!(changes.has_changed().unwrap());
}
