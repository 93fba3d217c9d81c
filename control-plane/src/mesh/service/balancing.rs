//! Which endpoints of a service are preferred.

use std::sync::Arc;

use mesh_api::{
    crd::Resolution,
    proto::workload::{
        LoadBalancing,
        load_balancing::{HealthPolicy, Mode, Scope},
    },
};

use crate::{
    mesh::{context::Context, names},
    object::{Metadata, Plain, Service, ServiceEntry},
};

const SAME_ZONE: [Scope; 3] = [Scope::Network, Scope::Region, Scope::Zone];
const SAME_NODE: [Scope; 5] =
    [Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node];

/// Returns how endpoints of a Kubernetes service are chosen.
pub(super) fn of_service(context: &Context<'_>, service: &Service) -> Option<LoadBalancing> {
    let mut balancing = if service.node_local {
        Some(preferring(&[Scope::Node], Mode::Strict))
    } else {
        let spec = service.traffic_distribution.as_deref();
        distributed(context, spec, &service.metadata)
    };
    if service.publish_not_ready {
        balancing.get_or_insert_default().set_health_policy(HealthPolicy::AllowAll);
    }
    balancing
}

/// Returns how endpoints of a service entry are chosen.
pub(super) fn of_entry(context: &Context<'_>, entry: &ServiceEntry) -> Option<LoadBalancing> {
    match entry.spec.resolution {
        // The client's choice is followed, whatever the state of the endpoint.
        Resolution::None => {
            let mut balancing = preferring(&[], Mode::Passthrough);
            balancing.set_health_policy(HealthPolicy::AllowAll);
            Some(balancing)
        }
        Resolution::Static
        | Resolution::Dns
        | Resolution::DnsRoundRobin
        | Resolution::DynamicDns => distributed(context, None, &entry.metadata),
    }
}

/// Returns what the first of these says: the specification, an annotation, one of the namespace.
fn distributed(
    context: &Context<'_>,
    spec: Option<&str>,
    metadata: &Metadata,
) -> Option<LoadBalancing> {
    let annotated = || metadata.annotation(names::TRAFFIC_DISTRIBUTION);
    let namespace = context.namespace_of(metadata).map(|n: &Arc<Plain>| &n.metadata);
    let inherited = || namespace.and_then(|n| n.annotation(names::TRAFFIC_DISTRIBUTION));
    match spec.or_else(annotated).or_else(inherited)? {
        "PreferClose" | "PreferSameZone" => Some(preferring(&SAME_ZONE, Mode::Failover)),
        "PreferSameNode" => Some(preferring(&SAME_NODE, Mode::Failover)),
        _ => None,
    }
}

fn preferring(scopes: &[Scope], mode: Mode) -> LoadBalancing {
    LoadBalancing {
        routing_preference: scopes.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
        ..LoadBalancing::default()
    }
}
