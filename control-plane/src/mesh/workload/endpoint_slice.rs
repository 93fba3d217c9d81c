//! Workloads of the addresses of endpoint slices that are no pods.

use std::collections::BTreeSet;

use mesh_api::proto::workload::{NetworkMode, Port, PortList, WorkloadStatus};

use super::{base, resource, set_addresses};
use crate::{
    mesh::{context::Context, service},
    object::{EndpointSlice, Labels, Service},
    resource::Resource,
};

/// Returns a workload for each endpoint that is no pod. Nothing is known of it but its address, so
/// it is not taken for the only one that has it.
pub(in crate::mesh) fn of_endpoint_slice(
    context: &mut Context<'_>,
    slice: &EndpointSlice,
) -> Vec<Resource> {
    let Some(name) = slice.service() else { return Vec::new() };
    let Some(service) = context.store.service(&name).filter(|s| service::is_sent(s)) else {
        return Vec::new();
    };
    let key = format!("{}/{}", name.namespace, context.store.host_of(&name));
    let ports = PortList { ports: ports(slice, service) };
    let metadata = &slice.metadata;
    let kind = "discovery.k8s.io/EndpointSlice";
    let mut seen = BTreeSet::new();
    let mut resources = Vec::new();
    for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.pod.is_none()) {
        let Some(first) = endpoint.addresses.first().filter(|first| seen.insert(**first)) else {
            continue;
        };
        let labels = Labels::default();
        let mut workload = base(context, metadata.namespace(), &metadata.name.name, &labels);
        workload.uid = format!("{}/{kind}/{}/{first}", context.options.cluster, metadata.name);
        set_addresses(&mut workload, &endpoint.addresses);
        workload.services = [(key.clone(), ports.clone())].into();
        workload.set_network_mode(NetworkMode::HostNetwork);
        if !endpoint.ready {
            workload.set_status(WorkloadStatus::Unhealthy);
        }
        resources.push(resource(&workload, &endpoint.addresses));
    }
    resources
}

/// Returns the ports of the endpoints, which bear the names of the service's ports.
fn ports(slice: &EndpointSlice, service: &Service) -> Vec<Port> {
    let port_of = |name: &str| slice.ports.iter().find(|port| *port.name == *name);
    let ports = service.ports.iter();
    ports
        .filter_map(|port| {
            let target_port = port_of(&port.name)?.port.into();
            Some(Port { service_port: port.port.into(), target_port, app_protocol: 0 })
        })
        .collect()
}
