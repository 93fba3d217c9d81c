//! What virtual services say without effect.

use mesh_api::crd::{VirtualFault, VirtualMatch, VirtualRoute};

use super::is_for_mesh;
use crate::{
    mesh::{context::Context, l7::matching, warning::Warning},
    object::VirtualService,
};

/// What has no effect: the path of a field, and why not.
type Ignored = (String, &'static str);

/// Warns of what a virtual service says without effect, whatever else there is.
pub(in crate::mesh) fn note_without_effect(context: &mut Context<'_>, object: &VirtualService) {
    let spec = &object.spec;
    if !is_for_mesh(&spec.gateways) {
        return;
    }
    let mut ignored = Vec::new();
    let last = spec.http.iter().position(takes_everything).map_or(usize::MAX, |last| last + 1);
    if last < spec.http.len() {
        let why = "an earlier route takes every request: move that one behind it";
        ignored.push((format!("spec.http[{last}]"), why));
    }
    for (i, route) in spec.http.iter().enumerate() {
        of_route(&format!("spec.http[{i}]"), route, &mut ignored);
    }
    for (i, route) in spec.tls.iter().enumerate() {
        for (j, matched) in route.matches.iter().enumerate() {
            let [name] = matched.sni_hosts.as_slice() else {
                ignored.push((format!("spec.tls[{i}].match[{j}]"), SERVER_NAMES));
                continue;
            };
            if name.starts_with('*') {
                ignored.push((format!("spec.tls[{i}].match[{j}]"), SERVER_NAMES));
            }
        }
    }
    for (i, route) in spec.tcp.iter().enumerate() {
        for (j, _) in route.matches.iter().enumerate().filter(|(_, m)| !m.source_subnet.is_empty())
        {
            let why = "no connection matches, as addresses of clients are not compared: use \
                       sourceNamespace or sourceLabels in place of sourceSubnet";
            ignored.push((format!("spec.tcp[{i}].match[{j}]"), why));
        }
    }
    for (field, why) in ignored {
        context.warn(Warning::NoEffect { field, why });
    }
}

const SERVER_NAMES: &str = "no connection matches, as server names are not read: list in sniHosts \
                            the host name of the service, and nothing else";

/// Returns whether nothing is left for the routes behind this one.
fn takes_everything(route: &VirtualRoute) -> bool {
    let takes = |matched: &VirtualMatch| {
        let is_for_all = matched.source_labels.is_empty() && matched.source_namespace.is_empty();
        is_for_all
            && matched.port == 0
            && matched.gateways.is_empty()
            && matching::is_catch_all(matched)
    };
    route.delegate.is_none() && (route.matches.is_empty() || route.matches.iter().any(takes))
}

fn of_route(at: &str, route: &VirtualRoute, ignored: &mut Vec<Ignored>) {
    for (j, matched) in route.matches.iter().enumerate() {
        of_match(&format!("{at}.match[{j}]"), matched, ignored);
    }
    let by_expression = |matched: &VirtualMatch| {
        matched.uri.as_ref().is_some_and(|uri| uri.regex.as_deref().is_some_and(|r| r != "*"))
    };
    let replaces_prefix = route.rewrite.as_ref().is_some_and(|rewrite| !rewrite.uri.is_empty());
    if replaces_prefix && route.matches.iter().any(by_expression) {
        let why = "an expression matches no prefix that could be replaced: use uriRegexRewrite";
        ignored.push((format!("{at}.rewrite.uri"), why));
    }
    let Some(VirtualFault { delay, abort }) = &route.fault else { return };
    let why = "it happens to no request: say in percentage to how many";
    if delay.as_ref().is_some_and(|d| d.percentage.is_none() && d.percent.is_none()) {
        ignored.push((format!("{at}.fault.delay"), why));
    }
    if abort.as_ref().is_some_and(|abort| abort.percentage.is_none()) {
        ignored.push((format!("{at}.fault.abort"), why));
    }
}

fn of_match(at: &str, matched: &VirtualMatch, ignored: &mut Vec<Ignored>) {
    if matched.headers.keys().any(|name| matching::is_claim(name)) {
        let why = "no request matches, as tokens are not read before it is routed: use a header in \
                   place of @request.auth.claims";
        ignored.push((at.to_owned(), why));
    }
    for name in matched.without_headers.keys().filter(|name| matching::is_claim(name)) {
        let why = "tokens are not read before a request is routed: use a header";
        ignored.push((format!("{at}.withoutHeaders.{name}"), why));
    }
    if !matched.stat_prefix.is_empty() {
        let why = "requests are counted by service, not by match: remove it";
        ignored.push((format!("{at}.statPrefix"), why));
    }
}
