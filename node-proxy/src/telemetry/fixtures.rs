//! Workloads and connections for the tests of this module.

use std::{collections::BTreeMap, sync::Arc};

use mesh_api::{
    identity::Identity,
    workload::{
        Balancing, Health, IpFamilies, Locality, Network, NetworkMode, NodeName, PolicyKey,
        Service, ServiceKey, TunnelProtocol, Workload, WorkloadType, WorkloadUid,
    },
};

use super::metrics::{ConnectionLabels, End, Reporter};

fn identity(service_account: &str) -> Identity {
    format!("spiffe://cluster.local/ns/shop/sa/{service_account}").parse().unwrap()
}

/// Returns a workload of the service account `name`, on node `n1`.
pub(crate) fn workload(name: &str) -> Workload {
    Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/shop/{name}-0").into()),
        name: format!("{name}-0").into(),
        identity: identity(name),
        addresses: vec!["10.1.2.9".parse().unwrap()],
        hostname: None,
        network: Network::default(),
        network_gateway: None,
        tunnel_protocol: TunnelProtocol::Hbone,
        node: NodeName("n1".into()),
        workload_name: name.into(),
        workload_type: WorkloadType::Deployment,
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        cluster_id: "Kubernetes".into(),
        locality: Locality { region: "eu".into(), zone: "eu-1".into(), subzone: "".into() },
        services: BTreeMap::new(),
        waypoint: None,
        authorization_policies: Vec::new(),
        health: Health::Healthy,
        network_mode: NetworkMode::Standard,
        application_tunnel: None,
        unknown_destinations: None,
        capacity: 1,
    }
}

/// Returns a service without ports.
pub(crate) fn service() -> Service {
    Service {
        key: ServiceKey {
            namespace: "shop".parse().unwrap(),
            hostname: "cache.shop.svc.cluster.local".into(),
        },
        name: "cache".into(),
        addresses: Vec::new(),
        ports: Vec::new(),
        port_names: Vec::new(),
        subject_alt_names: Vec::new(),
        waypoint: None,
        weighted_waypoints: Vec::new(),
        ip_families: IpFamilies::Automatic,
        canonical: false,
        namespace_local: false,
        allow_unhealthy: false,
        balancing: Balancing::Even,
    }
}

pub(crate) fn end(name: &str) -> End {
    End { workload: Some(Arc::new(workload(name))), identity: Some(identity(name)) }
}

pub(crate) fn labels(source: &str) -> ConnectionLabels {
    ConnectionLabels {
        reporter: Reporter::Source,
        source: end(source),
        destination: end("cache"),
        service: Some(Arc::new(service())),
        outside: None,
    }
}

pub(crate) fn policy_key() -> Arc<PolicyKey> {
    Arc::new(PolicyKey { namespace: "shop".parse().unwrap(), name: "deny-all".into() })
}
