//! Services: of Kubernetes, and of service entries.

mod balancing;
mod entry;
pub(super) mod export;
mod protocol;

use std::{net::IpAddr, sync::Arc};

use mesh_api::proto::workload::{
    AppProtocol, IpFamilies, NetworkAddress, Port, Service as Wire, load_balancing::Mode,
};

pub(super) use self::entry::of_service_entry;
use super::{
    context::Context,
    hosts, l7, waypoint,
    wire::{alias, octets},
};
use crate::{
    object::{Object, ObjectKey, ObjectKind, Service, ServiceEntry, ServiceType, TargetPort},
    resource::Resource,
};

/// What declares services.
pub(super) enum Declaration<'a> {
    /// A Kubernetes service.
    Service(&'a Service),
    /// A service entry.
    Entry(&'a ServiceEntry),
}

// === impl Declaration ===

impl<'a> Declaration<'a> {
    /// Returns the services that an object declares, if it does.
    pub(super) fn of(object: &'a Object) -> Option<Self> {
        match object {
            Object::Service(service) => Some(Self::Service(service)),
            Object::ServiceEntry(entry) => Some(Self::Entry(entry)),
            Object::MeshConfig(_)
            | Object::Namespace(_)
            | Object::Node(_)
            | Object::ServiceAccount(_)
            | Object::Secret(_)
            | Object::Gateway(_)
            | Object::EndpointSlice(_)
            | Object::WorkloadEntry(_)
            | Object::VirtualService(_)
            | Object::DestinationRule(_)
            | Object::HttpRoute(_)
            | Object::GrpcRoute(_)
            | Object::TlsRoute(_)
            | Object::TcpRoute(_)
            | Object::ReferenceGrant(_)
            | Object::AuthorizationPolicy(_)
            | Object::PeerAuthentication(_)
            | Object::Pod(_) => None,
        }
    }

    /// Returns the ports of the services, with what is spoken there.
    pub(super) fn ports(&self) -> Vec<(u32, AppProtocol)> {
        match self {
            Self::Service(service) => {
                let ports = service.ports.iter();
                ports.map(|port| (port.port.into(), protocol::of_port(port))).collect()
            }
            Self::Entry(entry) => {
                let ports = entry.spec.ports.iter();
                ports.map(|port| (port.number, protocol::of_name(&port.protocol))).collect()
            }
        }
    }
}

/// Returns the wire form of a Kubernetes service, and of its routes.
pub(super) fn of_service(context: &mut Context<'_>, service: &Service) -> Vec<Resource> {
    let metadata = &service.metadata;
    let namespace = metadata.namespace();
    let hostname = context.store.host_of(&metadata.name);
    let key = ObjectKey { kind: ObjectKind::Service, name: metadata.name.clone() };
    if hosts::owner(context, namespace, &hostname) != Some(&key) {
        return Vec::new();
    }
    let audience = export::of_service(context, service);
    let Some(visibility) = export::visibility(context, audience) else { return Vec::new() };
    let waypoint = waypoint::of_service(context, metadata);
    let weighted_waypoints = match &waypoint {
        Some(primary) => waypoint::weighted(context, metadata, primary),
        None => Vec::new(),
    };
    let wire = Wire {
        name: metadata.name.name.to_string(),
        namespace: namespace.to_string(),
        addresses: service.addresses.iter().map(|a| network_address(context, *a)).collect(),
        ports: ports(service),
        ingress_use_waypoint: waypoint.is_some() && waypoint::ingress_uses(context, metadata),
        waypoint,
        weighted_waypoints,
        load_balancing: balancing::of_service(context, service),
        ip_families: ip_families(service).into(),
        canonical: hosts::is_canonical(context, &key, &hostname),
        visibility: visibility.into(),
        hostname,
        ..Wire::default()
    };
    let network = &context.options.network;
    let aliases = service.addresses.iter().map(|address| alias(network, *address));
    let mut resources = vec![Resource::service(&wire, aliases.collect())];
    resources.extend(l7::routes(context, &key, &wire));
    resources
}

/// Returns whether the service of a host says which of its endpoints are preferred.
pub(super) fn prefers_endpoints(
    context: &Context<'_>,
    namespace: &Arc<str>,
    hostname: &str,
) -> bool {
    let owner = hosts::owner(context, namespace, hostname);
    let balancing = match owner.and_then(|key| context.store.get(key)).and_then(Declaration::of) {
        Some(Declaration::Service(service)) => balancing::of_service(context, service),
        Some(Declaration::Entry(entry)) => balancing::of_entry(context, entry),
        None => None,
    };
    balancing.is_some_and(|balancing| balancing.mode() != Mode::UnspecifiedMode)
}

/// Returns whether proxies are told of a service: an alias of a name is left to DNS.
pub(super) fn is_sent(service: &Service) -> bool {
    match service.kind {
        ServiceType::ClusterIP | ServiceType::NodePort | ServiceType::LoadBalancer => true,
        ServiceType::ExternalName => false,
    }
}

fn network_address(context: &Context<'_>, address: IpAddr) -> NetworkAddress {
    let network = context.options.network.to_string();
    NetworkAddress { network, address: octets(address), length: None }
}

fn ports(service: &Service) -> Vec<Port> {
    let ports = service.ports.iter();
    ports
        .map(|port| Port {
            service_port: port.port.into(),
            target_port: match port.target {
                TargetPort::Number(number) => number.into(),
                TargetPort::Name(_) => 0,
            },
            app_protocol: protocol::of_port(port).into(),
        })
        .collect()
}

fn ip_families(service: &Service) -> IpFamilies {
    match &*service.ip_families {
        [] => IpFamilies::Automatic,
        [one] if **one == *"IPv4" => IpFamilies::Ipv4Only,
        [_] => IpFamilies::Ipv6Only,
        [_, _, ..] => IpFamilies::Dual,
    }
}

#[cfg(test)]
mod tests;
