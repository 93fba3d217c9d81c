//! Objects and resources for tests, as text.

use std::collections::BTreeMap;

use mesh_api::{
    policy::Policy,
    proto::{
        l7::{self, resource::Kind as L7},
        security::Authorization,
        workload::{Service, Workload},
    },
};
use prost::Message as _;
use serde_json::Value;

use crate::{
    mesh::{Enrolment, Event, Mesh, Options},
    object::{Object, Read, read, yaml},
    resource::{Kind, Resource},
};

/// Reads the objects of a YAML text, all of which the mesh depends on.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let read = |value: Result<Value, String>| match read(value.unwrap()) {
        Ok(Read::Object(object)) => object,
        other => panic!("{other:?}"),
    };
    yaml::documents(yaml).into_iter().map(read).collect()
}

pub(crate) fn object(yaml: &str) -> Object {
    objects(yaml).pop().unwrap()
}

pub(crate) fn applied(yaml: &str) -> Vec<Event> {
    objects(yaml).into_iter().map(Event::Applied).collect()
}

pub(crate) fn declared() -> Options {
    Options { enrolment: Enrolment::Declared, ..Options::default() }
}

/// A mesh of the objects of a YAML text, in which labels say who takes part.
pub(crate) fn mesh(yaml: &str) -> Mesh {
    let mut mesh = Mesh::new(declared());
    mesh.apply(applied(yaml));
    mesh
}

/// A pod of the namespace `shop` that takes part.
pub(crate) fn pod(name: &str, ip: &str, labels: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: \
         {{istio.io/dataplane-mode: ambient, {labels}}}}}, spec: {{nodeName: n1, containers: \
         [{{ports: [{{name: web, containerPort: 8080}}]}}]}}, status: {{podIP: {ip}}}}}\n"
    )
}

pub(crate) fn workload(mesh: &Mesh, name: &str) -> Workload {
    let named = |workload: &Workload| workload.name == name;
    workloads(mesh).into_values().find(named).unwrap_or_else(|| panic!("no workload {name}"))
}

pub(crate) fn workloads(mesh: &Mesh) -> BTreeMap<String, Workload> {
    let decode = |resource: &Resource| Workload::decode(resource.body.clone()).unwrap();
    decoded(mesh, Kind::Workload, decode)
}

pub(crate) fn services(mesh: &Mesh) -> BTreeMap<String, Service> {
    let decode = |resource: &Resource| Service::decode(resource.body.clone()).unwrap();
    decoded(mesh, Kind::Service, decode)
}

/// Policies, all of which proxies have to accept.
pub(crate) fn policies(mesh: &Mesh) -> BTreeMap<String, Authorization> {
    let decode = |resource: &Resource| {
        let policy = Authorization::decode(resource.body.clone()).unwrap();
        Policy::try_from(policy.clone()).unwrap();
        policy
    };
    decoded(mesh, Kind::Authorization, decode)
}

/// What waypoints are told, by name.
pub(crate) fn l7(mesh: &Mesh) -> BTreeMap<String, L7> {
    let decode =
        |resource: &Resource| l7::Resource::decode(resource.body.clone()).unwrap().kind.unwrap();
    decoded(mesh, Kind::L7, decode)
}

/// The routes of all services, each service's in the order in which they are tried.
pub(crate) fn routes(mesh: &Mesh) -> Vec<l7::Route> {
    let mut routes: Vec<_> = l7(mesh)
        .into_values()
        .filter_map(|kind| match kind {
            L7::Route(route) => Some(route),
            L7::Destination(_) | L7::Authorization(_) | L7::Labels(_) | L7::Settings(_) => None,
        })
        .collect();
    let service = |route: &l7::Route| route.service.clone().map(|s| (s.namespace, s.hostname));
    routes.sort_by_key(|route| (service(route), route.order.clone()));
    routes
}

fn decoded<T>(mesh: &Mesh, kind: Kind, decode: impl Fn(&Resource) -> T) -> BTreeMap<String, T> {
    let of_kind = mesh.resources().filter(|resource| resource.kind == kind);
    of_kind.map(|resource| (resource.name.to_string(), decode(resource))).collect()
}
