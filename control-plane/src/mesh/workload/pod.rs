//! Workloads of pods.

use std::collections::BTreeMap;

use mesh_api::{
    enrolment::{Candidate, INJECT_LABEL, INJECTION_LABEL, MODE_LABEL, SIDECAR_ANNOTATION},
    proto::workload::{
        Locality, NetworkMode, Port, PortList, TunnelProtocol, Workload, WorkloadStatus,
    },
};

use super::{
    base, owner, resource, selected_by, service_keys, set_addresses, set_canonical,
    set_native_tunnel, set_policies,
};
use crate::{
    mesh::{context::Context, names, service::Declaration, store::account_name, waypoint},
    object::{Object, ObjectKey, ObjectKind, ObjectName, Pod, ServicePort, TargetPort},
    resource::Resource,
};

/// Value of the annotation by which a node agent reports that it captures a pod's traffic.
const REDIRECTED: &str = "enabled";

/// Returns the workload of a pod, unless it has no address or has ended.
pub(in crate::mesh) fn of_pod(context: &mut Context<'_>, pod: &Pod) -> Option<Resource> {
    if pod.has_ended() || pod.addresses.is_empty() {
        return None;
    }
    let metadata = &pod.metadata;
    let namespace = metadata.namespace();
    let mut workload = base(context, namespace, &metadata.name.name, &metadata.labels);
    workload.uid = format!("{}//Pod/{}", context.options.cluster, metadata.name);
    workload.service_account = pod.service_account.to_string();
    workload.node = pod.node.to_string();
    workload.locality = locality(context, pod);
    set_addresses(&mut workload, &pod.addresses);
    if pod.host_network {
        workload.set_network_mode(NetworkMode::HostNetwork);
    }
    if !is_healthy(context, pod) {
        workload.set_status(WorkloadStatus::Unhealthy);
    }
    if is_enrolled(context, pod) {
        workload.set_tunnel_protocol(TunnelProtocol::Hbone);
    }
    set_native_tunnel(&mut workload, &metadata.labels);
    let (owner_type, owner_name) = owner::of(metadata);
    workload.set_workload_type(owner_type);
    workload.workload_name = owner_name;
    set_canonical(&mut workload, &metadata.labels);
    workload.services = services(context, pod);
    set_policies(context, &mut workload, namespace, &metadata.labels);
    set_waypoint(context, &mut workload, pod);
    waypoint::require(context, &mut workload, pod);
    Some(resource(&workload, &pod.addresses))
}

fn set_waypoint(context: &mut Context<'_>, workload: &mut Workload, pod: &Pod) {
    workload.application_tunnel = waypoint::application_tunnel(context, &pod.metadata);
    workload.waypoint = waypoint::of_pod(context, &pod.metadata, &account_name(pod));
}

fn is_healthy(context: &Context<'_>, pod: &Pod) -> bool {
    !pod.metadata.deleting && pod.ready.unwrap_or_else(|| context.is_declared())
}

/// Returns whether the pod receives HBONE.
fn is_enrolled(context: &Context<'_>, pod: &Pod) -> bool {
    if pod.metadata.annotation(names::REDIRECTION) == Some(REDIRECTED) {
        return true;
    }
    let namespace = pod.metadata.namespace();
    let candidate = Candidate {
        namespace,
        namespace_mode: context.namespace_label(namespace, MODE_LABEL),
        namespace_injection: context.namespace_label(namespace, INJECTION_LABEL),
        mode: pod.metadata.label(MODE_LABEL),
        inject: pod.metadata.label(INJECT_LABEL),
        host_network: pod.host_network,
        has_sidecar: pod.metadata.annotation(SIDECAR_ANNOTATION).is_some(),
    };
    context.is_declared() && candidate.takes_part()
}

fn locality(context: &Context<'_>, pod: &Pod) -> Option<Locality> {
    let node = context.store.node(&ObjectName::new("", pod.node.clone()))?;
    let label = |name| node.metadata.label(name).unwrap_or_default().to_owned();
    let locality = Locality {
        region: label(names::REGION),
        zone: label(names::ZONE),
        subzone: label(names::SUBZONE),
    };
    (locality != Locality::default()).then_some(locality)
}

/// Returns the services that select the pod, and those without selector whose slices list it.
fn services(context: &Context<'_>, pod: &Pod) -> BTreeMap<String, PortList> {
    let metadata = &pod.metadata;
    let ports = |service: &Object| ports(service, pod);
    let mut services = selected_by(context, metadata.namespace(), &metadata.labels, ports);
    for key in context.store.slices_of_pod.get(&metadata.name) {
        let slice = context.store.endpoint_slice(&key.name);
        let Some(name) = slice.and_then(|slice| slice.service()) else { continue };
        let key = ObjectKey { kind: ObjectKind::Service, name };
        let Some(object @ Object::Service(service)) = context.store.get(&key) else { continue };
        if service.selector.is_empty() {
            for key in service_keys(context, &key, object) {
                services.entry(key).or_insert_with(|| PortList { ports: ports(object) });
            }
        }
    }
    services
}

/// Returns the ports of the pod for those of a service.
fn ports(service: &Object, pod: &Pod) -> Vec<Port> {
    match Declaration::of(service) {
        Some(Declaration::Service(service)) => {
            service.ports.iter().filter_map(|port| service_port(port, pod)).collect()
        }
        Some(Declaration::Entry(entry)) => {
            let ports = entry.spec.ports.iter();
            ports
                .map(|port| {
                    let declared = match port.target_port {
                        0 => port.number,
                        target => target,
                    };
                    let target_port = named_port(pod, &port.name).unwrap_or(declared);
                    Port { service_port: port.number, target_port, app_protocol: 0 }
                })
                .collect()
        }
        None => Vec::new(),
    }
}

/// Returns the port of the pod for one of a service; none if the pod lacks the name.
fn service_port(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let target_port = match &port.target {
        TargetPort::Number(number) => (*number).into(),
        TargetPort::Name(name) => named_port(pod, name)?,
    };
    Some(Port { service_port: port.port.into(), target_port, app_protocol: 0 })
}

fn named_port(pod: &Pod, name: &str) -> Option<u32> {
    pod.ports.iter().find(|port| *port.name == *name).map(|port| port.port.into())
}
