//! Changes for tests.

use std::sync::Arc;

use mesh_api::proto::{
    discovery::{DeltaDiscoveryRequest, Status},
    l7::{Credential, WorkloadLabels, resource::Kind as L7},
    security::Authorization,
    workload::{PortList, Service, Workload},
};
use prost::Message as _;

use super::{request::Request, resource_type::ResourceType};
use crate::resource::{Change, Kind, Resource, ResourceName, Urgency};

/// Returns a workload whose content is `content`.
pub(crate) fn workload(name: &str, content: u32) -> Change {
    endpoint(name, content, &[], &[])
}

/// Returns a workload with aliases and services.
pub(crate) fn endpoint(name: &str, content: u32, aliases: &[&str], services: &[&str]) -> Change {
    let services = services.iter().map(|name| ((*name).to_owned(), PortList::default())).collect();
    let workload =
        Workload { uid: name.into(), name: content.to_string(), services, ..Default::default() };
    present(Resource::workload(&workload, boxed(aliases)))
}

/// Returns a service whose content is `content`.
pub(crate) fn service(namespace: &str, hostname: &str, content: u32, aliases: &[&str]) -> Change {
    let service = Service {
        namespace: namespace.into(),
        hostname: hostname.into(),
        name: content.to_string(),
        ..Default::default()
    };
    present(Resource::service(&service, boxed(aliases)))
}

/// Returns a policy whose content is `content`.
pub(crate) fn policy(namespace: &str, name: &str, content: u32) -> Change {
    let scope = i32::try_from(content).unwrap();
    let policy = Authorization {
        namespace: namespace.into(),
        name: name.into(),
        scope,
        ..Default::default()
    };
    present(Resource::authorization(&policy))
}

/// Returns labels of a workload, which are for some waypoints.
pub(crate) fn labels(uid: &str, waypoints: &[&str]) -> Change {
    versioned_labels(uid, 0, waypoints)
}

/// Does so with the version `content` among the labels.
pub(crate) fn versioned_labels(uid: &str, content: u32, waypoints: &[&str]) -> Change {
    let labels = [("version".to_owned(), content.to_string())].into();
    let labels = WorkloadLabels { uid: uid.into(), labels };
    present(Resource::l7(format!("labels/{uid}"), L7::Labels(labels), boxed(waypoints)))
}

/// Returns what a secret has, whose key is `key`, for some waypoints that run as the service accounts
/// of their names.
pub(crate) fn credential(namespace: &str, name: &str, key: &str, waypoints: &[&str]) -> Change {
    let credential = Credential {
        namespace: namespace.into(),
        name: name.into(),
        private_key: key.to_owned().into(),
        ..Default::default()
    };
    let accounts = waypoints.iter().map(|account| account.parse().unwrap()).collect();
    present(Resource::credential(&credential, boxed(waypoints), accounts))
}

/// Returns the removal of a resource.
pub(crate) fn gone(kind: Kind, name: &str) -> Change {
    let name = ResourceName::new(name);
    Change { kind, name, resource: None, urgency: Urgency::Immediate }
}

/// Returns a request of the given type that subscribes to names.
pub(crate) fn request(resource_type: ResourceType, subscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: resource_type.url().into(),
        resource_names_subscribe: subscribe.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// Returns a request as it is after its way over the wire.
pub(crate) fn received(request: &DeltaDiscoveryRequest) -> Request {
    Request::decode(request.encode_to_vec().into()).unwrap()
}

/// Returns the acknowledgement of a response, or its rejection.
pub(crate) fn reply(
    resource_type: ResourceType,
    nonce: &str,
    rejection: Option<&str>,
) -> DeltaDiscoveryRequest {
    let error_detail =
        rejection.map(|message| Status { code: 3, message: message.into(), ..Default::default() });
    DeltaDiscoveryRequest {
        response_nonce: nonce.into(),
        error_detail,
        ..request(resource_type, &[])
    }
}

fn present(resource: Resource) -> Change {
    let (kind, name) = (resource.kind, resource.name.clone());
    Change { kind, name, resource: Some(Arc::new(resource)), urgency: Urgency::Batched }
}

fn boxed(names: &[&str]) -> Box<[Box<str>]> {
    names.iter().map(|name| Box::from(*name)).collect()
}
