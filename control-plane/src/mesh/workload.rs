//! Workloads: of pods, of workload entries, of service entries and of endpoint slices.

mod endpoint_slice;
mod entry;
mod owner;
mod pod;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_api::{
    convert::outbound,
    proto::workload::{Port, PortList, TunnelProtocol, Workload},
};

pub(super) use self::{
    endpoint_slice::of_endpoint_slice,
    entry::{of_service_entry, of_workload_entry, resolves_hosts},
    pod::of_pod,
};
use super::{
    context::Context,
    hosts, names, policy,
    service::Declaration,
    wire::{alias, octets},
};
use crate::{
    object::{Labels, Object, ObjectKey},
    resource::Resource,
};

/// Canonical revision of workloads that name none.
const DEFAULT_REVISION: &str = "latest";
/// Value of the label of workloads that speak HBONE themselves.
const HTTP_TUNNEL: &str = "http";

/// Returns a workload with what all workloads have alike.
fn base(context: &Context<'_>, namespace: &Arc<str>, name: &Arc<str>, labels: &Labels) -> Workload {
    let network = labels.get(names::NETWORK).unwrap_or(&context.options.network);
    Workload {
        name: name.to_string(),
        namespace: namespace.to_string(),
        network: network.to_owned(),
        cluster_id: context.options.cluster.to_string(),
        trust_domain: context.settings.trust_domain.clone(),
        extensions: context
            .settings
            .unknown_destinations
            .map(outbound::extension)
            .into_iter()
            .collect(),
        ..Workload::default()
    }
}

/// Marks a workload that speaks HBONE itself.
fn set_native_tunnel(workload: &mut Workload, labels: &Labels) {
    let protocols = labels.get(names::TUNNEL).unwrap_or_default();
    if protocols.split(',').any(|protocol| protocol == HTTP_TUNNEL) {
        workload.set_tunnel_protocol(TunnelProtocol::Hbone);
        workload.native_tunnel = true;
    }
}

/// Sets the canonical name, by default that of the owner, and the canonical revision.
fn set_canonical(workload: &mut Workload, labels: &Labels) {
    let first = |names: [&str; 3]| names.into_iter().find_map(|name| labels.get(name));
    let name = first(names::CANONICAL_NAMES).unwrap_or(&workload.workload_name);
    workload.canonical_name = name.to_owned();
    let revision = first(names::CANONICAL_REVISIONS).unwrap_or(DEFAULT_REVISION);
    revision.clone_into(&mut workload.canonical_revision);
}

/// Sets the keys of the policies that name the workload.
fn set_policies(
    context: &Context<'_>,
    workload: &mut Workload,
    namespace: &Arc<str>,
    labels: &Labels,
) {
    workload.authorization_policies = policy::keys_for(context, namespace, labels);
}

/// Returns the services of a namespace that select something with `labels`, each with the ports of
/// its endpoints as `ports` says.
fn selected_by(
    context: &Context<'_>,
    namespace: &Arc<str>,
    labels: &Labels,
    ports: impl Fn(&Object) -> Vec<Port>,
) -> BTreeMap<String, PortList> {
    let selecting = context.store.service_selectors.selecting(namespace, labels);
    let selecting = selecting.filter_map(|key| Some((key, context.store.get(key)?)));
    let services = selecting.flat_map(|(key, object)| {
        let ports = ports(object);
        service_keys(context, key, object)
            .into_iter()
            .map(move |key| (key, PortList { ports: ports.clone() }))
    });
    services.collect()
}

/// Returns the keys of those hosts of a service or service entry that it is given, not another one.
fn service_keys(context: &Context<'_>, key: &ObjectKey, object: &Object) -> Vec<String> {
    match Declaration::of(object) {
        Some(Declaration::Service(_)) => {
            given_hosts(context, key, &[context.store.host_of(&key.name)])
        }
        Some(Declaration::Entry(entry)) => given_hosts(context, key, &entry.spec.hosts),
        None => Vec::new(),
    }
}

/// Returns the keys of those of an object's hosts that it is given.
fn given_hosts(context: &Context<'_>, key: &ObjectKey, hosts: &[String]) -> Vec<String> {
    let namespace = &key.name.namespace;
    let given = hosts.iter().filter(|host| hosts::owner(context, namespace, host) == Some(key));
    given.map(|host| format!("{namespace}/{host}")).collect()
}

/// Encodes a workload.
fn resource(workload: &Workload, addresses: &[IpAddr]) -> Resource {
    let aliases = addresses.iter().map(|address| alias(&workload.network, *address)).collect();
    Resource::workload(workload, aliases)
}

/// Sets the addresses.
fn set_addresses(workload: &mut Workload, addresses: &[IpAddr]) {
    workload.addresses = addresses.iter().map(|address| octets(*address)).collect();
}

#[cfg(test)]
mod tests;
