//! Where requests are forwarded to.

use mesh_api::{crd::BackendReference, proto::l7::WeightedDestination};

use super::{Source, UNUSABLE, filter};
use crate::{
    mesh::{
        context::Context,
        l7::{Target, nowhere, target},
    },
    object::ObjectName,
};

/// Kind of backends that say none.
const SERVICE: &str = "Service";

/// Why a reference leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// Objects of its kind are no backends.
    Kind,
    /// There is no such service, or not with that port.
    Missing,
    /// The namespace of the service does not let the route refer to it.
    Forbidden,
}

/// Returns the destinations of a rule; those that cannot be meant refuse their share.
pub(super) fn destinations(
    context: &mut Context<'_>,
    source: &Source<'_>,
    backends: &[BackendReference],
) -> Vec<WeightedDestination> {
    backends.iter().map(|backend| destination(context, source, backend)).collect()
}

fn destination(
    context: &mut Context<'_>,
    source: &Source<'_>,
    backend: &BackendReference,
) -> WeightedDestination {
    let weight = backend.weight.unwrap_or(1);
    let found = resolve(context, source, backend);
    match (found, filter::of_backend(&backend.filters)) {
        (Ok((Target { service, .. }, port)), Ok(headers)) => WeightedDestination {
            service: Some(service),
            port,
            weight,
            request_headers: headers.request,
            response_headers: headers.response,
            ..WeightedDestination::default()
        },
        (Ok((Target { service, .. }, _)) | Err((Target { service, .. }, _)), _) => {
            WeightedDestination {
                service: Some(service),
                weight,
                refusal: UNUSABLE,
                ..WeightedDestination::default()
            }
        }
    }
}

/// Returns the service that is meant, and its port; otherwise what is named, and why it is not meant.
pub(super) fn resolve(
    context: &mut Context<'_>,
    source: &Source<'_>,
    backend: &BackendReference,
) -> Result<(Target, u32), (Target, Unresolved)> {
    let own = source.metadata.namespace();
    let [group, kind] = group_and_kind(backend);
    let namespace = match backend.namespace.as_deref() {
        Some(namespace) if !namespace.is_empty() => namespace.into(),
        Some(_) | None => own.clone(),
    };
    let host = match (group, kind) {
        ("" | "core", SERVICE) => {
            context.store.host_of(&ObjectName::new(namespace.clone(), backend.name.as_str()))
        }
        ("networking.istio.io", "Hostname") => backend.name.to_ascii_lowercase(),
        _ => return Err((nowhere(own, &backend.name), Unresolved::Kind)),
    };
    let host = host.into();
    let Some(found) = target(context, &source.scope.consumer, &host) else {
        return Err((nowhere(&namespace, &host), Unresolved::Missing));
    };
    if !is_permitted(context, source, backend, &found) {
        return Err((found, Unresolved::Forbidden));
    }
    match backend.port {
        Some(port) if found.ports.contains(&port) => Ok((found, port)),
        Some(_) | None => Err((found, Unresolved::Missing)),
    }
}

/// Returns whether a route may send requests to a service.
///
/// They come there in the waypoint's name. Whoever owns neither the waypoint nor the service that the
/// clients asked for must not borrow that name to reach what is somebody else's; for all others the
/// API wants no permission in a mesh.
fn is_permitted(
    context: &Context<'_>,
    source: &Source<'_>,
    backend: &BackendReference,
    found: &Target,
) -> bool {
    let own = source.metadata.namespace();
    let namespace = found.service.namespace.as_str();
    if !source.is_of_consumer || *namespace == **own || found.service == source.scope.service {
        return true;
    }
    let [group, kind] = group_and_kind(backend);
    let (from, to) = ([source.kind.group(), source.kind.name(), own], [group, kind, &backend.name]);
    let mut grants = context.store.grants.get(namespace);
    grants.any(|name| {
        context.store.reference_grant(name).is_some_and(|grant| grant.spec.permits(from, to))
    })
}

fn group_and_kind(backend: &BackendReference) -> [&str; 2] {
    [backend.group.as_deref().unwrap_or_default(), backend.kind.as_deref().unwrap_or(SERVICE)]
}
