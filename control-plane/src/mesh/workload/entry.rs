//! Workloads of workload entries, and of the endpoints of service entries.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mesh_api::{
    crd::{self, Resolution},
    proto::workload::{Locality, Port, PortList, Workload, WorkloadStatus, WorkloadType},
};

use super::{
    base, given_hosts, resource, selected_by, set_addresses, set_canonical, set_native_tunnel,
    set_policies,
};
use crate::{
    mesh::{
        context::Context,
        service::Declaration,
        store::{account_of_entry, entry_labels},
        warning::Warning,
        waypoint,
    },
    object::{
        Labels, Object, ObjectKey, ObjectKind, ObjectName, ServiceEntry, TargetPort, WorkloadEntry,
    },
    resource::Resource,
};

const UNIX_SCHEME: &str = "unix://";
/// Why an endpoint that listens on a file gets nothing.
const FILE: &str = "proxies reach no files of other machines: give an IP address";
/// Condition of a workload entry that says whether it takes traffic.
const HEALTHY_CONDITION: &str = "Healthy";

/// Returns the workload of a workload entry, unless no proxy can reach it.
pub(in crate::mesh) fn of_workload_entry(
    context: &mut Context<'_>,
    entry: &WorkloadEntry,
) -> Option<Resource> {
    let metadata = &entry.metadata;
    let namespace = metadata.namespace();
    let labels = entry_labels(entry);
    let mut workload = base(context, namespace, &metadata.name.name, &labels);
    if entry.spec.address.starts_with(UNIX_SCHEME) {
        context.warn(Warning::NoEffect { field: "spec.address".to_owned(), why: FILE });
    }
    let addresses = set_endpoint(&mut workload, &entry.spec)?;
    let kind = "networking.istio.io/WorkloadEntry";
    workload.uid = format!("{}/{kind}/{}", context.options.cluster, metadata.name);
    workload.workload_name = metadata.name.name.to_string();
    workload.set_workload_type(WorkloadType::Pod);
    if is_unhealthy(&entry.status) {
        workload.set_status(WorkloadStatus::Unhealthy);
    }
    set_native_tunnel(&mut workload, &labels);
    set_canonical(&mut workload, &labels);
    let ports = |service: &Object| ports(service, &entry.spec);
    workload.services = selected_by(context, namespace, &labels, ports);
    set_policies(context, &mut workload, namespace, &labels);
    let account = account_of_entry(namespace, &entry.spec);
    workload.waypoint = waypoint::of_workload(context, namespace, &labels, account.as_ref());
    Some(resource(&workload, &addresses))
}

/// Returns the workloads of the endpoints of a service entry; of its hosts where these are resolved.
pub(in crate::mesh) fn of_service_entry(
    context: &mut Context<'_>,
    entry: &ServiceEntry,
) -> Vec<Resource> {
    let key = ObjectKey { kind: ObjectKind::ServiceEntry, name: entry.metadata.name.clone() };
    let keys = given_hosts(context, &key, &entry.spec.hosts);
    if keys.is_empty() {
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut resources = Vec::new();
    if resolves_hosts(entry) {
        for key in keys {
            let address = key.split_once('/').map_or(&*key, |(_, host)| host).to_owned();
            let endpoint = crd::WorkloadEntry { address, ..crd::WorkloadEntry::default() };
            resources.extend(of_endpoint(context, entry, &endpoint, &[key]));
        }
        return resources;
    }
    for (i, endpoint) in entry.spec.endpoints.iter().enumerate() {
        if endpoint.address.starts_with(UNIX_SCHEME) {
            let field = format!("spec.endpoints[{i}].address");
            context.warn(Warning::NoEffect { field, why: FILE });
        }
        // A second one of the same address would have the same name.
        if seen.insert(&endpoint.address) {
            resources.extend(of_endpoint(context, entry, endpoint, &keys));
        }
    }
    resources
}

/// Returns whether the endpoints are whatever the hosts resolve to.
pub(in crate::mesh) fn resolves_hosts(entry: &ServiceEntry) -> bool {
    let by_dns = match entry.spec.resolution {
        Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns => true,
        Resolution::None | Resolution::Static => false,
    };
    by_dns && entry.spec.endpoints.is_empty() && entry.spec.workload_selector.is_none()
}

fn of_endpoint(
    context: &mut Context<'_>,
    entry: &ServiceEntry,
    endpoint: &crd::WorkloadEntry,
    services: &[String],
) -> Option<Resource> {
    let metadata = &entry.metadata;
    let namespace = metadata.namespace();
    let labels = Labels::from(&endpoint.labels);
    let mut workload = base(context, namespace, &metadata.name.name, &labels);
    let addresses = set_endpoint(&mut workload, endpoint)?;
    let kind = "networking.istio.io/ServiceEntry";
    let ObjectName { namespace: _, name } = &metadata.name;
    workload.uid =
        format!("{}/{kind}/{namespace}/{name}/{}", context.options.cluster, endpoint.address);
    workload.workload_name = name.to_string();
    workload.set_workload_type(WorkloadType::Pod);
    set_native_tunnel(&mut workload, &metadata.labels);
    set_canonical(&mut workload, &metadata.labels);
    let ports = entry_ports(entry, endpoint);
    let with_ports = |key: &String| (key.clone(), PortList { ports: ports.clone() });
    workload.services = services.iter().map(with_ports).collect::<BTreeMap<_, _>>();
    set_policies(context, &mut workload, namespace, &metadata.labels);
    if !resolves_hosts(entry) {
        let account = account_of_entry(namespace, endpoint);
        workload.waypoint = waypoint::of_workload(context, namespace, &labels, account.as_ref());
    }
    Some(resource(&workload, &addresses))
}

/// Sets what an endpoint says about itself; none if proxies of
/// this network cannot reach it: it has no address, or listens on a file.
fn set_endpoint(workload: &mut Workload, endpoint: &crd::WorkloadEntry) -> Option<Vec<IpAddr>> {
    if endpoint.address.is_empty() || endpoint.address.starts_with(UNIX_SCHEME) {
        return None;
    }
    let addresses: Vec<IpAddr> = endpoint.address.parse().into_iter().collect();
    set_addresses(workload, &addresses);
    if addresses.is_empty() {
        workload.hostname.clone_from(&endpoint.address);
    }
    if !endpoint.network.is_empty() {
        workload.network.clone_from(&endpoint.network);
    }
    workload.service_account.clone_from(&endpoint.service_account);
    workload.locality = locality(&endpoint.locality);
    workload.capacity = Some(endpoint.weight).filter(|weight| *weight != 0);
    Some(addresses)
}

fn is_unhealthy(status: &crd::WorkloadStatus) -> bool {
    let condition = status.conditions.iter().find(|condition| condition.kind == HEALTHY_CONDITION);
    condition.is_some_and(|condition| condition.status != "True")
}

fn locality(text: &str) -> Option<Locality> {
    if text.is_empty() {
        return None;
    }
    let mut parts = text.split('/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Some(Locality { region: next(), zone: next(), subzone: next() })
}

/// Returns the ports of an endpoint for those of a service.
fn ports(service: &Object, endpoint: &crd::WorkloadEntry) -> Vec<Port> {
    match Declaration::of(service) {
        Some(Declaration::Service(service)) => {
            let ports = service.ports.iter();
            ports
                .filter_map(|port| {
                    let named = |name: &str| endpoint.ports.get(name).copied();
                    let target_port = match &port.target {
                        TargetPort::Number(number) => {
                            named(&port.name).unwrap_or_else(|| (*number).into())
                        }
                        TargetPort::Name(name) => named(name)?,
                    };
                    Some(Port { service_port: port.port.into(), target_port, app_protocol: 0 })
                })
                .collect()
        }
        Some(Declaration::Entry(entry)) => entry_ports(entry, endpoint),
        None => Vec::new(),
    }
}

/// Returns the ports of an endpoint for those of a service entry: its own of the same name first.
fn entry_ports(entry: &ServiceEntry, endpoint: &crd::WorkloadEntry) -> Vec<Port> {
    let ports = entry.spec.ports.iter();
    ports
        .map(|port| {
            let declared = match port.target_port {
                0 => port.number,
                target => target,
            };
            let target_port = endpoint.ports.get(&port.name).copied().unwrap_or(declared);
            Port { service_port: port.number, target_port, app_protocol: 0 }
        })
        .collect()
}
