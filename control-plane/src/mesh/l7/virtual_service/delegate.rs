//! Routes that a virtual service leaves to another one.

use std::borrow::Cow;

use mesh_api::crd::{Text, VirtualMatch, VirtualRoute};

use super::seen;
use crate::{
    mesh::{
        context::Context,
        store::delegate_name,
        warning::{RouteFlaw, Warning},
    },
    object::VirtualService,
};

/// Returns the routes of a virtual service, with those of others in the place of what is left to
/// them.
pub(super) fn resolved<'a>(
    context: &mut Context<'_>,
    service: &'a VirtualService,
) -> Vec<Cow<'a, VirtualRoute>> {
    let namespace = service.metadata.namespace();
    let mut routes = Vec::new();
    for root in &service.spec.http {
        let Some(delegate) = &root.delegate else {
            routes.push(Cow::Borrowed(root));
            continue;
        };
        let name = delegate_name(namespace, delegate);
        let other = context.store.virtual_service(&name).filter(|other| {
            other.spec.hosts.is_empty()
                && seen(context, other, other.metadata.namespace(), namespace).is_some()
        });
        let Some(other) = other else {
            let of = service.metadata.name.clone();
            context.warn(Warning::Route(RouteFlaw::DelegateMissing { of, name }));
            continue;
        };
        for route in &other.spec.http {
            // One level only.
            if route.delegate.is_none() {
                routes.extend(merged(root, route).map(Cow::Owned));
            }
        }
    }
    routes
}

/// Returns a route of a delegate with what the root adds; none if the two contradict each other.
fn merged(root: &VirtualRoute, route: &VirtualRoute) -> Option<VirtualRoute> {
    let name = match (root.name.as_str(), route.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (root, name) => format!("{root}-{name}"),
    };
    // The older forms of a percentage go with the mirror that they are of.
    let mirrors = if route.mirror.is_some() || !route.mirrors.is_empty() { route } else { root };
    Some(VirtualRoute {
        name,
        matches: merged_matches(&root.matches, &route.matches)?,
        route: route.route.clone(),
        redirect: route.redirect.clone(),
        direct_response: route.direct_response.clone().or_else(|| root.direct_response.clone()),
        delegate: None,
        rewrite: route.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout: route.timeout.or(root.timeout),
        retries: route.retries.clone().or_else(|| root.retries.clone()),
        fault: route.fault.clone().or_else(|| root.fault.clone()),
        mirror: mirrors.mirror.clone(),
        mirrors: mirrors.mirrors.clone(),
        mirror_percent: mirrors.mirror_percent,
        mirror_percentage: mirrors.mirror_percentage,
        cors_policy: route.cors_policy.clone().or_else(|| root.cors_policy.clone()),
        headers: route.headers.clone().or_else(|| root.headers.clone()),
    })
}

/// Returns what matches for both; none if something of the delegate is outside of the root's.
fn merged_matches(root: &[VirtualMatch], own: &[VirtualMatch]) -> Option<Vec<VirtualMatch>> {
    if root.is_empty() || own.is_empty() {
        return Some([root, own].concat());
    }
    let mut matches = Vec::new();
    for own in own {
        let within = root.iter().filter_map(|root| merged_match(root, own));
        let before = matches.len();
        matches.extend(within);
        if matches.len() == before {
            return None;
        }
    }
    Some(matches)
}

fn merged_match(root: &VirtualMatch, own: &VirtualMatch) -> Option<VirtualMatch> {
    let mut merged = own.clone();
    for (root, own) in [
        (&root.uri, &mut merged.uri),
        (&root.scheme, &mut merged.scheme),
        (&root.method, &mut merged.method),
        (&root.authority, &mut merged.authority),
    ] {
        if !is_within(root.as_ref(), own.as_ref()) {
            return None;
        }
        *own = own.take().or_else(|| root.clone());
    }
    for (root, own) in [
        (&root.headers, &mut merged.headers),
        (&root.without_headers, &mut merged.without_headers),
        (&root.query_params, &mut merged.query_params),
    ] {
        for (name, text) in root {
            if !is_within(Some(text), own.get(name)) {
                return None;
            }
            own.entry(name.clone()).or_insert_with(|| text.clone());
        }
    }
    if root.uri.is_some() && own.uri.is_some() && root.ignore_uri_case != own.ignore_uri_case {
        return None;
    }
    merged.ignore_uri_case = root.ignore_uri_case || own.ignore_uri_case;
    merged.port = agreed(root.port, own.port, &0)?;
    let namespaces = (root.source_namespace.clone(), own.source_namespace.clone());
    merged.source_namespace = agreed(namespaces.0, namespaces.1, &String::new())?;
    for (name, value) in &root.source_labels {
        let own = merged.source_labels.entry(name.clone()).or_insert_with(|| value.clone());
        if own != value {
            return None;
        }
    }
    if !root.gateways.is_empty() {
        if own.gateways.iter().any(|name| !root.gateways.contains(name)) {
            return None;
        }
        if own.gateways.is_empty() {
            merged.gateways.clone_from(&root.gateways);
        }
    }
    if own.name.is_empty() {
        merged.name.clone_from(&root.name);
    }
    if own.stat_prefix.is_empty() {
        merged.stat_prefix.clone_from(&root.stat_prefix);
    }
    Some(merged)
}

/// Returns the value that two agree upon; `unset` agrees with all.
fn agreed<T: PartialEq>(one: T, other: T, unset: &T) -> Option<T> {
    match (one == *unset, other == *unset) {
        (true, _) => Some(other),
        (false, true) => Some(one),
        (false, false) => (one == other).then_some(one),
    }
}

/// Returns whether everything that a condition of the delegate matches is matched by the root's.
fn is_within(root: Option<&Text>, own: Option<&Text>) -> bool {
    let (Some(root), Some(own)) = (root, own) else { return true };
    let Text { exact, prefix, regex } = root;
    match (exact, prefix, regex) {
        // What expressions match is not compared.
        (_, _, Some(_)) => own == root,
        (Some(exact), _, None) => own.exact.as_ref() == Some(exact),
        (None, Some(prefix), None) => {
            let begins = |text: &Option<String>| {
                text.as_ref().is_some_and(|text| text.starts_with(prefix.as_str()))
            };
            own.regex.is_none() && (begins(&own.exact) || begins(&own.prefix))
        }
        (None, None, None) => true,
    }
}
