//! What the status of a route says of the services that it is attached to.

use mesh_api::{
    crd::{BackendReference, GrpcRule, HttpRule, ParentReference, RouteFilter},
    proto::{l7::ServiceRef, workload::AppProtocol},
};

use super::{
    Attached, Scope, Source, attached,
    backend::{self, Unresolved},
    filter::{self, Unusable},
    is_of_consumer, matching,
};
use crate::{
    mesh::{
        context::Context,
        judgement::{Judgement, ParentJudgement},
        l7::{may_be_http, virtual_service},
        service::Declaration,
        store::{parent_key, parents_of},
        waypoint,
    },
    object::{Metadata, Object, ObjectKey, ObjectKind, ObjectName},
};

/// What is judged of a rule.
struct Rule<'a> {
    filters: &'a [RouteFilter],
    filters_of_backends: Vec<&'a [RouteFilter]>,
    /// Those of mirrors, too.
    backends: Vec<&'a BackendReference>,
    /// Whether its conditions can be understood.
    is_understood: bool,
}

/// A service that a route names as its parent.
struct Parent<'a> {
    key: ObjectKey,
    service: Declaration<'a>,
    metadata: &'a Metadata,
}

/// Returns what the status of a route has to say of each service that it names as its parent.
pub(in crate::mesh) fn judge(context: &mut Context<'_>, object: &Object) -> Vec<ParentJudgement> {
    let rules: Vec<_> = match Some(object) {
        Some(Object::HttpRoute(route)) => route.spec.rules.iter().map(of_http).collect(),
        Some(Object::GrpcRoute(route)) => route.spec.rules.iter().map(of_grpc).collect(),
        Some(Object::TlsRoute(route) | Object::TcpRoute(route)) => {
            let rules = route.spec.rules.iter();
            rules.map(|rule| of_rule(&[], &rule.backend_refs, true)).collect()
        }
        _ => return Vec::new(),
    };
    let mut judgements = Vec::new();
    for reference in parents_of(object) {
        // What is no service is for gateways to say.
        let Some(key) = parent_key(object.metadata().namespace(), reference) else { continue };
        judgements.push(of_parent(context, object, reference, key, &rules));
    }
    judgements
}

fn of_http(rule: &HttpRule) -> Rule<'_> {
    let is_understood = rule.matches.iter().all(|matched| matching::http(matched).is_some());
    of_rule(&rule.filters, &rule.backend_refs, is_understood)
}

fn of_grpc(rule: &GrpcRule) -> Rule<'_> {
    let is_understood = rule.matches.iter().all(|matched| matching::grpc(matched).is_some());
    of_rule(&rule.filters, &rule.backend_refs, is_understood)
}

fn of_rule<'a>(
    filters: &'a [RouteFilter],
    backends: &'a [BackendReference],
    is_understood: bool,
) -> Rule<'a> {
    let filters_of_backends = backends.iter().map(|backend| backend.filters.as_slice()).collect();
    let mirrors = filters.iter().filter_map(|filter| filter.request_mirror.as_ref());
    let backends = backends.iter().chain(mirrors.map(|mirror| &mirror.backend_ref)).collect();
    Rule { filters, filters_of_backends, backends, is_understood }
}

fn of_parent(
    context: &mut Context<'_>,
    object: &Object,
    reference: &ParentReference,
    key: ObjectKey,
    rules: &[Rule<'_>],
) -> ParentJudgement {
    let found = context.store.get(&key);
    let parent = found.and_then(|object| {
        Some(Parent { key, service: Declaration::of(object)?, metadata: object.metadata() })
    });
    let waypoint = parent.as_ref().and_then(|parent| waypoint::name_for(context, parent.metadata));
    let metadata = object.metadata();
    let scope = scope(context, reference, parent.as_ref(), waypoint.as_ref(), metadata);
    let source = Source {
        scope: &scope,
        metadata,
        kind: object.kind(),
        ports: Vec::new(),
        is_of_consumer: is_of_consumer(metadata.namespace(), &scope),
    };
    ParentJudgement {
        parent: reference.clone(),
        accepted: accepted(context, &source, reference, parent.as_ref(), waypoint.as_ref(), rules),
        resolved: resolved(context, &source, rules),
    }
}

fn scope(
    context: &Context<'_>,
    reference: &ParentReference,
    parent: Option<&Parent<'_>>,
    waypoint: Option<&ObjectName>,
    metadata: &Metadata,
) -> Scope {
    let named = match reference.namespace.as_str() {
        "" => metadata.namespace().clone(),
        namespace => namespace.into(),
    };
    let namespace = parent.map_or(named, |parent| parent.metadata.namespace().clone());
    let hostname = match parent {
        Some(Parent { service: Declaration::Entry(entry), .. }) => {
            entry.spec.hosts.first().cloned().unwrap_or_default()
        }
        Some(Parent { service: Declaration::Service(_), .. }) | None => {
            context.store.host_of(&ObjectName::new(namespace.clone(), reference.name.as_str()))
        }
    };
    Scope {
        service: ServiceRef { namespace: namespace.to_string(), hostname },
        ports: Vec::new(),
        addresses: Vec::new(),
        consumer: waypoint.map_or(namespace, |waypoint| waypoint.namespace.clone()),
    }
}

/// Returns whether a route is attached to a service, and all of its rules can be applied.
fn accepted(
    context: &mut Context<'_>,
    source: &Source<'_>,
    reference: &ParentReference,
    parent: Option<&Parent<'_>>,
    waypoint: Option<&ObjectName>,
    rules: &[Rule<'_>],
) -> Judgement {
    let Some(Parent { key, service, .. }) = parent else {
        let message = format!("there is no {} {}", reference.kind, reference.name);
        return refused("NoMatchingParent", message);
    };
    if matches!(attached(service, reference), Attached::ToNone) {
        return refused("NoMatchingParent", format!("{key} has no such port"));
    }
    for (i, rule) in rules.iter().enumerate() {
        if !rule.is_understood {
            let message = format!("rule {i}: a regular expression that is none");
            return refused("UnsupportedValue", message);
        }
        let of_rule = filter::of_rule(context, source, rule.filters).map(drop);
        let of_backends = rule.filters_of_backends.iter();
        let mut of_backends = of_backends.map(|filters| filter::of_backend(filters).map(drop));
        if let Err(unusable) = of_rule.and_then(|()| of_backends.try_for_each(|done| done)) {
            return of_unusable(i, &unusable);
        }
    }
    let message = match waypoint {
        Some(_) if !is_spoken(source.kind, service, reference) => format!(
            "attached to {key}, but without effect: its ports are declared to carry something else; \
             set their appProtocol, or name them by what they carry"
        ),
        Some(waypoint) => {
            let rest = what_is_left(context, source);
            format!("attached to {key}, whose waypoint {waypoint} applies it{rest}")
        }
        None => format!(
            "attached to {key}, but without effect: it has no waypoint; label it or its namespace \
             with istio.io/use-waypoint"
        ),
    };
    Judgement { holds: true, reason: "Accepted", message }
}

/// Returns whether one of the ports that a route is attached to may carry what it routes.
fn is_spoken(kind: ObjectKind, service: &Declaration<'_>, reference: &ParentReference) -> bool {
    let only = match attached(service, reference) {
        Attached::ToAll => None,
        Attached::To(port) => Some(port),
        Attached::ToNone => return false,
    };
    let ports = service.ports();
    let mut attached = ports.iter().filter(|(port, _)| only.is_none_or(|only| only == *port));
    ports.is_empty()
        || attached.any(|(_, protocol)| match kind {
            ObjectKind::HttpRoute | ObjectKind::GrpcRoute => may_be_http(*protocol),
            _ => matches!(protocol, AppProtocol::Unknown) || !may_be_http(*protocol),
        })
}

/// Returns what becomes of requests that a route does not match, if that is for others to say.
fn what_is_left(context: &Context<'_>, source: &Source<'_>) -> String {
    let is_for_all_requests = match source.kind {
        ObjectKind::HttpRoute | ObjectKind::GrpcRoute => !source.is_of_consumer,
        _ => false,
    };
    let names = if is_for_all_requests {
        virtual_service::of_http(context, source.scope)
    } else {
        Vec::new()
    };
    if names.is_empty() {
        return String::new();
    }
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    format!("; what it does not match is left to virtual service {}", names.join(", "))
}

/// Returns what is said of a route whose rule `i` has filters that cannot be applied.
fn of_unusable(i: usize, unusable: &Unusable) -> Judgement {
    let unsupported = "UnsupportedValue";
    match unusable {
        Unusable::Unknown(kind) => {
            refused(unsupported, format!("rule {i}: filter of the type `{kind}`"))
        }
        Unusable::Contradiction => {
            let message = format!("rule {i}: a redirect leaves nothing to rewrite");
            refused("IncompatibleFilters", message)
        }
        Unusable::Invalid(error) => refused(unsupported, format!("rule {i}: filters: {error}")),
        Unusable::AtBackend(kind) => {
            let message = format!(
                "rule {i}: filter of the type `{kind}` of a single backend: move it to the filters \
                 of the rule"
            );
            refused(unsupported, message)
        }
    }
}

/// Returns whether all backends of a route are there.
fn resolved(context: &mut Context<'_>, source: &Source<'_>, rules: &[Rule<'_>]) -> Judgement {
    for (i, rule) in rules.iter().enumerate() {
        for backend in &rule.backends {
            let Err((_, problem)) = backend::resolve(context, source, backend) else { continue };
            let name = match (backend.namespace.as_deref(), backend.port) {
                (Some(namespace), Some(port)) => format!("{namespace}/{}:{port}", backend.name),
                (None, Some(port)) => format!("{}:{port}", backend.name),
                (_, None) => backend.name.clone(),
            };
            let (reason, why) = match problem {
                Unresolved::Kind => ("InvalidKind", "objects of this kind are no backends"),
                Unresolved::Missing => ("BackendNotFound", "no such service with that port"),
                Unresolved::Forbidden => {
                    ("RefNotPermitted", "its namespace has no ReferenceGrant for this route")
                }
            };
            return refused(reason, format!("rule {i}: backend {name}: {why}"));
        }
    }
    let message = "all backends are there".to_owned();
    Judgement { holds: true, reason: "ResolvedRefs", message }
}

fn refused(reason: &'static str, message: String) -> Judgement {
    Judgement { holds: false, reason, message }
}
