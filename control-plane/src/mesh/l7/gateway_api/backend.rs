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
    let filters = filter::lower(context, source, &backend.filters);
    let found = resolve(context, source, backend);
    match (found, filters) {
        (Ok((Target { service, .. }, port)), Some(filters)) => WeightedDestination {
            service: Some(service),
            port,
            weight,
            request_headers: filters.request_headers,
            response_headers: filters.response_headers,
            ..WeightedDestination::default()
        },
        (Ok((Target { service, .. }, _)) | Err(Target { service, .. }), _) => WeightedDestination {
            service: Some(service),
            weight,
            refusal: UNUSABLE,
            ..WeightedDestination::default()
        },
    }
}

/// Returns the service that is meant, and its port; otherwise what is named.
pub(super) fn resolve(
    context: &mut Context<'_>,
    source: &Source<'_>,
    backend: &BackendReference,
) -> Result<(Target, u32), Target> {
    let own = source.metadata.namespace();
    let group = backend.group.as_deref().unwrap_or_default();
    let kind = backend.kind.as_deref().unwrap_or("Service");
    let namespace = match backend.namespace.as_deref() {
        Some(namespace) if !namespace.is_empty() => namespace.into(),
        Some(_) | None => own.clone(),
    };
    let host = match (group, kind) {
        ("" | "core", "Service") => {
            context.store.host_of(&ObjectName::new(namespace.clone(), backend.name.as_str()))
        }
        ("networking.istio.io", "Hostname") => backend.name.to_ascii_lowercase(),
        _ => return Err(nowhere(own, &backend.name)),
    };
    let host = host.into();
    let Some(found) = target(context, &source.scope.consumer, &host) else {
        return Err(nowhere(&namespace, &host));
    };
    match backend.port {
        Some(port) if found.ports.contains(&port) => Ok((found, port)),
        Some(_) | None => Err(found),
    }
}
