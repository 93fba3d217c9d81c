//! Labels of workloads: of those of namespaces that waypoints send traffic to, where they choose
//! endpoints by them, and of all where a route is for clients with some labels.

use std::collections::BTreeMap;

use mesh_api::proto::l7::{WorkloadLabels, resource::Kind};

use super::{
    super::{context::Context, store::entry_labels},
    every_waypoint,
};
use crate::{
    object::{Labels, Object, ObjectKey},
    resource::Resource,
};

/// Returns the labels of the workloads of an object, as far as they have some.
pub(in crate::mesh) fn labels<'a>(
    context: &Context<'_>,
    key: &ObjectKey,
    workloads: impl Iterator<Item = &'a str>,
) -> Vec<Resource> {
    let Some(object) = context.store.get(key) else { return Vec::new() };
    workloads.filter_map(|uid| of_workload(object, uid)).collect()
}

fn of_workload(object: &Object, uid: &str) -> Option<Resource> {
    let labels = match object {
        Object::Pod(pod) => pod.metadata.labels.clone(),
        Object::WorkloadEntry(entry) => entry_labels(entry),
        Object::ServiceEntry(entry) => {
            // Workloads of endpoints are named by their addresses.
            let address = uid.rsplit_once('/').map_or(uid, |(_, address)| address);
            let endpoints = entry.spec.endpoints.iter();
            let endpoint = endpoints.into_iter().find(|endpoint| endpoint.address == address)?;
            Labels::from(&endpoint.labels)
        }
        Object::MeshConfig(_)
        | Object::Namespace(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
        | Object::Gateway(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::VirtualService(_)
        | Object::DestinationRule(_)
        | Object::HttpRoute(_)
        | Object::GrpcRoute(_)
        | Object::TlsRoute(_)
        | Object::TcpRoute(_)
        | Object::ReferenceGrant(_)
        | Object::AuthorizationPolicy(_)
        | Object::PeerAuthentication(_) => return None,
    };
    let labels: BTreeMap<_, _> =
        labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let uid = uid.to_owned();
    let name = format!("labels/{uid}");
    let labels = (!labels.is_empty()).then(|| Kind::Labels(WorkloadLabels { uid, labels }))?;
    Some(Resource::l7(name, labels, every_waypoint()))
}
