//! Services of service entries.

use ipnet::IpNet;
use mesh_api::{
    convert,
    crd::Resolution,
    identity::Identity,
    proto::{
        networking::ServicePort,
        workload::{Extension, NetworkAddress, Port, Service as Wire},
    },
};

use super::{balancing, export, protocol};
use crate::{
    mesh::{
        context::Context,
        hosts, l7,
        store::wants_addresses,
        warning::Warning,
        waypoint,
        wire::{alias, octets},
        workload::resolves_hosts,
    },
    object::{ObjectKey, ObjectKind, ServiceEntry, range},
    resource::Resource,
};

/// Returns a service for each host of a service entry that no other object has, with its routes.
pub(in crate::mesh) fn of_service_entry(
    context: &mut Context<'_>,
    entry: &ServiceEntry,
) -> Vec<Resource> {
    let metadata = &entry.metadata;
    let audience = export::of_entry(context, entry);
    let Some(visibility) = export::visibility(context, audience) else { return Vec::new() };
    let waypoint = waypoint::of_service(context, metadata);
    if waypoint.is_some() && entry.spec.resolution == Resolution::None {
        context.warn(Warning::UnreachableAtWaypoint);
    }
    let weighted_waypoints = match &waypoint {
        Some(primary) => waypoint::weighted(context, metadata, primary),
        None => Vec::new(),
    };
    let template = Wire {
        name: metadata.name.name.to_string(),
        namespace: metadata.namespace().to_string(),
        ports: ports(entry),
        subject_alt_names: identities(entry),
        ingress_use_waypoint: waypoint.is_some() && waypoint::ingress_uses(context, metadata),
        waypoint,
        weighted_waypoints,
        load_balancing: balancing::of_entry(context, entry),
        extensions: port_names(entry).into_iter().collect(),
        visibility: visibility.into(),
        ..Wire::default()
    };
    let hosts = entry.spec.hosts.iter();
    hosts.flat_map(|host| of_host(context, entry, host, &template)).collect()
}

fn of_host(
    context: &mut Context<'_>,
    entry: &ServiceEntry,
    host: &str,
    template: &Wire,
) -> Vec<Resource> {
    let key = ObjectKey { kind: ObjectKind::ServiceEntry, name: entry.metadata.name.clone() };
    let Some(owner) = hosts::owner(context, entry.metadata.namespace(), host) else {
        return Vec::new();
    };
    if *owner != key {
        let by = owner.name.clone();
        context.warn(Warning::HostTaken { host: host.to_owned(), by });
        return Vec::new();
    }
    let ranges = addresses(context, entry, host);
    let network = &context.options.network;
    let wire = Wire {
        hostname: host.to_owned(),
        addresses: ranges.iter().map(|net| network_range(network, *net)).collect(),
        canonical: hosts::is_canonical(context, &key, host),
        ..template.clone()
    };
    let aliases = ranges.iter().map(|net| {
        if single(*net) { alias(network, net.addr()) } else { format!("{network}/{net}").into() }
    });
    let mut resources = vec![Resource::service(&wire, aliases.collect())];
    resources.extend(l7::routes(context, &key, &wire));
    resources
}

/// Returns the addresses of a host: those declared, otherwise those reported or allocated.
fn addresses(context: &mut Context<'_>, entry: &ServiceEntry, host: &str) -> Vec<IpNet> {
    if !entry.spec.addresses.is_empty() {
        return entry.spec.addresses.iter().filter_map(|text| range(text)).collect();
    }
    if !wants_addresses(entry) || host.starts_with('*') {
        return Vec::new();
    }
    let reported = entry.status.addresses.iter().filter(|address| address.host == host);
    let reported: Vec<_> = reported.filter_map(|a| a.value.parse().ok()).collect();
    let Some(slot) = context.store.virtual_address(entry, host) else {
        context.warn(Warning::AddressesExhausted(host.to_owned()));
        return Vec::new();
    };
    let allocated = slot.addresses();
    let addresses = if reported.contains(&allocated[0]) { reported } else { allocated.into() };
    addresses.into_iter().map(IpNet::from).collect()
}

fn single(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn network_range(network: &str, net: IpNet) -> NetworkAddress {
    NetworkAddress {
        network: network.to_owned(),
        address: octets(net.addr()),
        length: (!single(net)).then(|| net.prefix_len().into()),
    }
}

fn ports(entry: &ServiceEntry) -> Vec<Port> {
    let ports = entry.spec.ports.iter();
    ports
        .map(|port| Port {
            service_port: port.number,
            target_port: match port.target_port {
                0 => port.number,
                target => target,
            },
            app_protocol: protocol::of_name(&port.protocol).into(),
        })
        .collect()
}

/// Returns the names of the ports, unless name servers know the hosts: they have their own.
fn port_names(entry: &ServiceEntry) -> Option<Extension> {
    let elsewhere = entry.spec.resolution == Resolution::None || resolves_hosts(entry);
    let ports = entry.spec.ports.iter().map(|port| ServicePort {
        number: port.number,
        protocol: port.protocol.clone(),
        name: port.name.clone(),
    });
    let ports: Vec<_> = ports.collect();
    (!elsewhere && !ports.is_empty()).then(|| convert::port_names::extension(ports))
}

/// Returns the identities that the endpoints may present. Other names are for TLS of the
/// application, which proxies do not see.
fn identities(entry: &ServiceEntry) -> Vec<String> {
    let names = entry.spec.subject_alt_names.iter();
    names.filter(|name| name.parse::<Identity>().is_ok()).cloned().collect()
}
