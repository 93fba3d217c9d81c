//! Reads objects from JSON.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use mesh_api::crd;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::{
    Custom, EndpointSlice, InvalidObject, MeshConfig, Metadata, Object, ObjectKind, Plain, Pod,
    Problem, Secret, Service, validate, yaml,
};

/// Name of the config map that holds the mesh configuration.
const MESH_CONFIG_MAP: &str = "istio";

/// What a JSON value turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// An object that the mesh depends on.
    Object(Object),
    /// Several values to read.
    List(Vec<Value>),
    /// An object that the mesh does not depend on: its kind.
    Other(String),
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Header {
    api_version: String,
    kind: String,
}

/// Reads and checks an object, or the objects of a list.
pub fn read(mut value: Value) -> Result<Read, InvalidObject> {
    let Header { api_version, kind } = typed("", &value)?;
    if api_version.is_empty() {
        return Err(Problem::Missing("set it, for instance to v1").at("apiVersion"));
    }
    if kind.is_empty() {
        return Err(Problem::Missing("set it, for instance to Service").at("kind"));
    }
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    if group.is_empty() && kind.ends_with("List") {
        return list(&mut value);
    }
    let known = ObjectKind::ALL.into_iter().find(|k| k.name() == kind && k.group() == group);
    let Some(known) = known else { return Ok(Read::Other(kind)) };
    for field in lenient_fields(known) {
        if let Some(value) = value.get_mut(*field) {
            drop_nulls(value);
        }
    }
    let metadata = Metadata::read(known, &value)?;
    if known == ObjectKind::MeshConfig && &*metadata.name.name != MESH_CONFIG_MAP {
        return Ok(Read::Other(kind));
    }
    let object = object(known, metadata, &value)?;
    validate(&object)?;
    Ok(Read::Object(object))
}

fn list(value: &mut Value) -> Result<Read, InvalidObject> {
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(Read::List(items)),
        Some(Value::Null) | None => Ok(Read::List(Vec::new())),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            Err(Problem::Shape("is not a list: write the objects as one".into()).at("items"))
        }
    }
}

/// Fields in which null is the same as nothing, as tools write it there.
fn lenient_fields(kind: ObjectKind) -> &'static [&'static str] {
    match kind {
        // A condition of a policy that was forgotten must not mean "any".
        ObjectKind::ServiceEntry
        | ObjectKind::WorkloadEntry
        | ObjectKind::VirtualService
        | ObjectKind::DestinationRule
        | ObjectKind::AuthorizationPolicy
        | ObjectKind::PeerAuthentication => &["metadata", "status"],
        ObjectKind::MeshConfig
        | ObjectKind::Namespace
        | ObjectKind::Node
        | ObjectKind::ServiceAccount
        | ObjectKind::Secret
        | ObjectKind::Gateway
        | ObjectKind::HttpRoute
        | ObjectKind::GrpcRoute
        | ObjectKind::TlsRoute
        | ObjectKind::TcpRoute
        | ObjectKind::ReferenceGrant
        | ObjectKind::Service
        | ObjectKind::EndpointSlice
        | ObjectKind::Pod => &["metadata", "spec", "status", "endpoints", "ports", "data"],
    }
}

fn object(kind: ObjectKind, metadata: Metadata, value: &Value) -> Result<Object, InvalidObject> {
    Ok(match kind {
        ObjectKind::MeshConfig => Object::MeshConfig(Arc::new(mesh_config(metadata, value)?)),
        ObjectKind::Namespace => Object::Namespace(Arc::new(Plain { metadata })),
        ObjectKind::Node => Object::Node(Arc::new(Plain { metadata })),
        ObjectKind::ServiceAccount => Object::ServiceAccount(Arc::new(Plain { metadata })),
        ObjectKind::Secret => Object::Secret(Arc::new(Secret::read(metadata, value)?)),
        ObjectKind::Gateway => Object::Gateway(Arc::new(custom(metadata, value)?)),
        ObjectKind::Service => Object::Service(Arc::new(Service::read(metadata, value)?)),
        ObjectKind::ServiceEntry => Object::ServiceEntry(Arc::new(custom(metadata, value)?)),
        ObjectKind::EndpointSlice => {
            Object::EndpointSlice(Arc::new(EndpointSlice::read(metadata, value)?))
        }
        ObjectKind::WorkloadEntry => Object::WorkloadEntry(Arc::new(custom(metadata, value)?)),
        ObjectKind::VirtualService => {
            Object::VirtualService(Arc::new(without_status(metadata, value)?))
        }
        ObjectKind::DestinationRule => {
            Object::DestinationRule(Arc::new(without_status(metadata, value)?))
        }
        ObjectKind::HttpRoute => Object::HttpRoute(Arc::new(without_status(metadata, value)?)),
        ObjectKind::GrpcRoute => Object::GrpcRoute(Arc::new(without_status(metadata, value)?)),
        ObjectKind::TlsRoute => Object::TlsRoute(Arc::new(without_status(metadata, value)?)),
        ObjectKind::TcpRoute => Object::TcpRoute(Arc::new(without_status(metadata, value)?)),
        ObjectKind::ReferenceGrant => {
            Object::ReferenceGrant(Arc::new(without_status(metadata, value)?))
        }
        ObjectKind::AuthorizationPolicy => {
            Object::AuthorizationPolicy(Arc::new(without_status(metadata, value)?))
        }
        ObjectKind::PeerAuthentication => {
            Object::PeerAuthentication(Arc::new(without_status(metadata, value)?))
        }
        ObjectKind::Pod => Object::Pod(Arc::new(Pod::read(metadata, value)?)),
    })
}

fn custom<Spec, Status>(
    metadata: Metadata,
    value: &Value,
) -> Result<Custom<Spec, Status>, InvalidObject>
where
    Spec: Default + DeserializeOwned,
    Status: Default + DeserializeOwned,
{
    Ok(Custom { metadata, spec: part(value, "spec")?, status: part(value, "status")? })
}

fn without_status<Spec>(metadata: Metadata, value: &Value) -> Result<Custom<Spec>, InvalidObject>
where
    Spec: Default + DeserializeOwned,
{
    Ok(Custom { metadata, spec: part(value, "spec")?, status: () })
}

/// Reads the mesh configuration, which is YAML in a string.
fn mesh_config(metadata: Metadata, value: &Value) -> Result<MeshConfig, InvalidObject> {
    const FIELD: &str = "data.mesh";
    let text = value.pointer("/data/mesh").and_then(Value::as_str).unwrap_or_default();
    let spec = match yaml::documents(text).into_iter().next() {
        Some(Ok(mut written)) => {
            drop_nulls(&mut written);
            typed(FIELD, &written)?
        }
        Some(Err(message)) => return Err(Problem::Shape(message).at(FIELD)),
        None => crd::MeshConfig::default(),
    };
    Ok(Custom { metadata, spec, status: () })
}

/// Reads a field of an object; its default if it is absent.
pub(super) fn part<T>(value: &Value, field: &str) -> Result<T, InvalidObject>
where
    T: Default + DeserializeOwned,
{
    value.get(field).map_or_else(|| Ok(T::default()), |written| typed(field, written))
}

/// Reads a value at the path `field`.
pub(super) fn typed<T: DeserializeOwned>(field: &str, value: &Value) -> Result<T, InvalidObject> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let problem = Problem::Shape(shape(error.inner()));
        let inner = problem.at(&path_text(error.path()));
        if field.is_empty() { inner } else { inner.within(field) }
    })
}

/// Returns a message, with a remedy where YAML took a text for something else.
fn shape(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let is_scalar = ["integer", "boolean", "floating point"]
        .iter()
        .any(|kind| message.starts_with(&format!("invalid type: {kind}")));
    let remedy =
        if is_scalar && message.ends_with("expected a string") { ": quote it" } else { "" };
    message + remedy
}

/// Reads an address; an IPv4-mapped one is the IPv4 address.
pub(super) fn address(field: &str, text: &str) -> Result<IpAddr, InvalidObject> {
    let parsed = text.parse::<IpAddr>().map(|address| address.to_canonical());
    parsed.map_err(|_| Problem::Address(text.escape_debug().to_string()).at(field))
}

/// Reads a range of addresses; a single address is one, too.
pub(crate) fn range(text: &str) -> Option<IpNet> {
    let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().map(|net| net.trunc()).or_else(single)
}

/// Removes what is null from mappings.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn path_text(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                text.push('[');
                text.push_str(&index.to_string());
                text.push(']');
            }
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Segment::Unknown => {}
        }
    }
    text
}

#[cfg(test)]
mod tests;
