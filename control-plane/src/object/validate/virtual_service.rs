//! Virtual services.

use std::collections::{BTreeMap, HashSet};

use mesh_api::crd::{
    HeaderOperations, Percent, Text, VirtualDestination, VirtualFault, VirtualHeaders,
    VirtualMatch, VirtualRedirect, VirtualResponse, VirtualRetries, VirtualRewrite, VirtualRoute,
    VirtualService,
};

use super::{
    InvalidObject, Problem, address, at_most, each, header, not_empty, port,
    traffic::{export_to, expression, status, time, times, weights},
};

/// Most routes, matches, destinations and the like of a list: a waypoint looks at one after another.
const MAX_ENTRIES: usize = 4096;
/// Largest body of an answer, in bytes, as the API limits it.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Gateway that stands for all proxies that are none.
const MESH: &str = "mesh";

const PSEUDO_HEADERS: [&str; 4] = [":authority", ":method", ":path", ":scheme"];
const CLAIMS: &str = "@request.auth.claims";
const CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];
const KNOWN_CONDITIONS: &str = "5xx, gateway-error, reset, reset-before-request, connect-failure, \
     envoy-ratelimited, retriable-4xx, refused-stream, retriable-status-codes, retriable-headers, \
     cancelled, deadline-exceeded, internal, resource-exhausted, unavailable, or a status";

/// Checks the specification of a virtual service.
pub(super) fn check(spec: &VirtualService) -> Result<(), InvalidObject> {
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        return Err(Problem::Missing("list at least one route, here or as tls or tcp").at("http"));
    }
    check_hosts(spec)?;
    export_to(&spec.export_to)?;
    for (field, count) in
        [("http", spec.http.len()), ("tls", spec.tls.len()), ("tcp", spec.tcp.len())]
    {
        at_most(field, count, MAX_ENTRIES)?;
    }
    each("http", &spec.http, |route| check_route(route, spec.hosts.is_empty()))?;
    each("tls", &spec.tls, |route| {
        if route.matches.is_empty() {
            return Err(Problem::Missing("list at least one match with sniHosts").at("match"));
        }
        each("match", &route.matches, |matched| {
            if matched.sni_hosts.is_empty() {
                return Err(Problem::Missing("list at least one server name").at("sniHosts"));
            }
            not_empty("sniHosts", &matched.sni_hosts)?;
            optional_port(matched.port)
        })?;
        check_tcp(route.route.iter().map(|to| (&to.destination, to.weight)))
    })?;
    each("tcp", &spec.tcp, |route| {
        each("match", &route.matches, |matched| optional_port(matched.port))?;
        check_tcp(route.route.iter().map(|to| (&to.destination, to.weight)))
    })
}

fn check_hosts(spec: &VirtualService) -> Result<(), InvalidObject> {
    at_most("hosts", spec.hosts.len(), MAX_ENTRIES)?;
    not_empty("hosts", &spec.hosts)?;
    if spec.hosts.is_empty() {
        // Others delegate to it.
        return match spec {
            VirtualService { gateways, .. } if !gateways.is_empty() => {
                Err(Problem::Needs("a list of hosts").at("gateways"))
            }
            VirtualService { tls, tcp, .. } if !tls.is_empty() || !tcp.is_empty() => {
                Err(Problem::Missing("list at least one host").at("hosts"))
            }
            _ => Ok(()),
        };
    }
    let in_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == MESH);
    let mut seen = HashSet::new();
    each("hosts", &spec.hosts, |host| {
        let name = host.strip_prefix("*.").unwrap_or(host);
        if host == "*" && in_mesh {
            let form = "the host name of a service, as all hosts can be meant at gateways only";
            return Err(Problem::Form { value: host.clone(), form }.at(""));
        }
        if host != "*" && name.contains('*') {
            let form =
                "a host name such as reviews, reviews.shop.svc.cluster.local or *.example.com";
            return Err(Problem::Form { value: host.escape_debug().to_string(), form }.at(""));
        }
        Ok(())
    })?;
    match spec.hosts.iter().position(|host| !seen.insert(host.to_ascii_lowercase())) {
        Some(i) => Err(Problem::Duplicate(spec.hosts[i].clone()).at(&format!("hosts[{i}]"))),
        None => Ok(()),
    }
}

fn check_route(route: &VirtualRoute, is_delegate: bool) -> Result<(), InvalidObject> {
    check_action(route, is_delegate)?;
    at_most("match", route.matches.len(), MAX_ENTRIES)?;
    each("match", &route.matches, check_match)?;
    at_most("route", route.route.len(), MAX_ENTRIES)?;
    each("route", &route.route, |to| {
        check_destination("destination", &to.destination)?;
        header::check(to.headers.as_ref())
    })?;
    weights("route", route.route.iter().map(|to| to.weight))?;
    header::check(route.headers.as_ref())?;
    if let Some(redirect) = &route.redirect {
        check_redirect(redirect, &route.matches).map_err(|error| error.within("redirect"))?;
    }
    if let Some(response) = &route.direct_response {
        check_response(response).map_err(|error| error.within("directResponse"))?;
    }
    if let Some(rewrite) = &route.rewrite {
        check_rewrite(rewrite, route.headers.as_ref()).map_err(|error| error.within("rewrite"))?;
    }
    if let Some(retries) = &route.retries {
        check_retries(retries).map_err(|error| error.within("retries"))?;
    }
    if let Some(fault) = &route.fault {
        check_fault(fault).map_err(|error| error.within("fault"))?;
    }
    times("timeout", route.timeout)?;
    check_mirrors(route)?;
    let Some(cors) = &route.cors_policy else { return Ok(()) };
    each("corsPolicy.allowOrigins", &cors.allow_origins, check_text)?;
    times("corsPolicy.maxAge", cors.max_age)
}

fn check_action(route: &VirtualRoute, is_delegate: bool) -> Result<(), InvalidObject> {
    let forwards = !route.route.is_empty();
    let redirects = route.redirect.is_some();
    let answers = route.direct_response.is_some();
    let delegates = route.delegate.is_some();
    if !(forwards || redirects || answers || delegates) {
        return Err(
            Problem::Missing("list a destination, or set redirect or directResponse").at("route")
        );
    }
    if delegates && is_delegate {
        return Err(Problem::Needs("a list of hosts, as delegates cannot delegate").at("delegate"));
    }
    let conflicts = [
        (delegates && forwards, "delegate", "route"),
        (delegates && redirects, "delegate", "redirect"),
        (delegates && answers, "delegate", "directResponse"),
        (forwards && redirects, "redirect", "route"),
        (forwards && answers, "directResponse", "route"),
        (redirects && answers, "directResponse", "redirect"),
        (route.fault.is_some() && redirects, "fault", "redirect"),
        (route.fault.is_some() && answers, "fault", "directResponse"),
        (route.rewrite.is_some() && redirects, "rewrite", "redirect"),
        (route.rewrite.is_some() && answers, "rewrite", "directResponse"),
        (route.mirror.is_some() && !route.mirrors.is_empty(), "mirrors", "mirror"),
    ];
    match conflicts.into_iter().find(|(is_there, ..)| *is_there) {
        Some((_, field, other)) => Err(Problem::Conflict(other).at(field)),
        None => Ok(()),
    }
}

fn check_match(matched: &VirtualMatch) -> Result<(), InvalidObject> {
    for (field, text) in [
        ("uri", &matched.uri),
        ("scheme", &matched.scheme),
        ("method", &matched.method),
        ("authority", &matched.authority),
    ] {
        if let Some(text) = text {
            check_text(text).map_err(|error| error.within(field))?;
        }
    }
    for (field, texts) in
        [("headers", &matched.headers), ("withoutHeaders", &matched.without_headers)]
    {
        check_texts(field, texts, |name| {
            header::is_token(name) || PSEUDO_HEADERS.contains(&name) || name.starts_with(CLAIMS)
        })?;
    }
    check_texts("queryParams", &matched.query_params, |name| !name.is_empty())?;
    optional_port(matched.port)
}

fn check_texts(
    field: &str,
    texts: &BTreeMap<String, Text>,
    is_name: impl Fn(&str) -> bool,
) -> Result<(), InvalidObject> {
    for (name, text) in texts {
        let path = format!("{field}.{name}");
        if !is_name(name) {
            let value = name.escape_debug().to_string();
            return Err(Problem::Form { value, form: header::FORM }.at(&path));
        }
        check_text(text).map_err(|error| error.within(&path))?;
    }
    Ok(())
}

/// Checks a condition on a text.
pub(super) fn check_text(text: &Text) -> Result<(), InvalidObject> {
    let Text { exact, prefix, regex } = text;
    if exact.is_some() && (prefix.is_some() || regex.is_some()) {
        return Err(Problem::Conflict("prefix and regex").at("exact"));
    }
    match (prefix, regex) {
        (Some(_), Some(_)) => Err(Problem::Conflict("regex").at("prefix")),
        (Some(prefix), None) if prefix.is_empty() => {
            Err(Problem::Missing("write how it begins, or {} for any value").at("prefix"))
        }
        // The API has it stand for any value.
        (None, Some(regex)) if regex == "*" => Ok(()),
        (None, Some(regex)) => expression("regex", regex),
        (Some(_) | None, None) => Ok(()),
    }
}

/// Checks a destination of HTTP or TCP traffic.
fn check_destination(field: &str, destination: &VirtualDestination) -> Result<(), InvalidObject> {
    let checked = if destination.host.is_empty() {
        Err(Problem::Missing("name a service").at("host"))
    } else if destination.host.contains('*') {
        let value = destination.host.escape_debug().to_string();
        Err(Problem::Form { value, form: "a host name without wildcard" }.at("host"))
    } else {
        optional_port(destination.port.number).map_err(|error| error.within("port"))
    };
    checked.map_err(|error| error.within(field))
}

fn check_tcp<'a>(
    to: impl Iterator<Item = (&'a VirtualDestination, i64)> + Clone,
) -> Result<(), InvalidObject> {
    if to.clone().next().is_none() {
        return Err(Problem::Missing("list at least one destination").at("route"));
    }
    for (i, (destination, _)) in to.clone().enumerate() {
        check_destination("destination", destination)
            .map_err(|error| error.within(&format!("route[{i}]")))?;
    }
    weights("route", to.map(|(_, weight)| weight))
}

fn optional_port(number: u32) -> Result<(), InvalidObject> {
    if number == 0 { Ok(()) } else { port(number).map_err(|problem| problem.at("port")) }
}

fn check_redirect(
    redirect: &VirtualRedirect,
    matches: &[VirtualMatch],
) -> Result<(), InvalidObject> {
    if redirect.uri.is_some() && redirect.prefix_rewrite.is_some() {
        return Err(Problem::Conflict("uri").at("prefixRewrite"));
    }
    let by_prefix =
        |matched: &VirtualMatch| matched.uri.as_ref().is_none_or(|uri| uri.prefix.is_some());
    if redirect.prefix_rewrite.is_some() && !matches.iter().all(by_prefix) {
        return Err(Problem::Needs("matches of the uri by prefix").at("prefixRewrite"));
    }
    address::path("uri", redirect.uri.as_deref().unwrap_or_default())?;
    address::path("prefixRewrite", redirect.prefix_rewrite.as_deref().unwrap_or_default())?;
    address::authority("authority", &redirect.authority)?;
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        return Err(Problem::Conflict("port").at("derivePort"));
    }
    if let Some(number) = redirect.port {
        port(number).map_err(|problem| problem.at("port"))?;
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        let value = redirect.scheme.escape_debug().to_string();
        return Err(Problem::Unknown { value, known: "http and https" }.at("scheme"));
    }
    if redirect.redirect_code == 0 {
        return Ok(());
    }
    status("redirectCode", redirect.redirect_code, 300..=399)
}

fn check_response(response: &VirtualResponse) -> Result<(), InvalidObject> {
    status("status", response.status, 200..=599)?;
    let Some(body) = &response.body else { return Ok(()) };
    if body.string.is_some() && body.bytes.is_some() {
        return Err(Problem::Conflict("string").at("body.bytes"));
    }
    if let Some(text) = &body.bytes
        && super::traffic::base64(text).is_none()
    {
        let form = "Base64";
        return Err(Problem::Form { value: text.escape_debug().to_string(), form }.at("body.bytes"));
    }
    let length = body.string.as_ref().or(body.bytes.as_ref()).map_or(0, String::len);
    at_most("body", length, MAX_BODY_BYTES)
}

fn check_rewrite(
    rewrite: &VirtualRewrite,
    headers: Option<&VirtualHeaders>,
) -> Result<(), InvalidObject> {
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        if !rewrite.uri.is_empty() {
            return Err(Problem::Conflict("uri").at("uriRegexRewrite"));
        }
        expression("uriRegexRewrite.match", &regex.pattern)?;
        address::substitution("uriRegexRewrite.rewrite", &regex.pattern, &regex.rewrite)?;
    }
    address::path("uri", &rewrite.uri)?;
    address::authority("authority", &rewrite.authority)?;
    let sets_host = headers.is_some_and(|headers| {
        let HeaderOperations { set, add, .. } = &headers.request;
        let mut names = set.keys().chain(add.keys());
        names.any(|name| name.eq_ignore_ascii_case("host") || name == ":authority")
    });
    if sets_host && !rewrite.authority.is_empty() {
        return Err(Problem::Conflict("a header of requests that sets the host").at("authority"));
    }
    Ok(())
}

fn check_retries(retries: &VirtualRetries) -> Result<(), InvalidObject> {
    if u32::try_from(retries.attempts).is_err() {
        let form = "0 or a greater number";
        return Err(Problem::Form { value: retries.attempts.to_string(), form }.at("attempts"));
    }
    let has_more = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && has_more {
        return Err(Problem::Missing("say how many times, or remove the other fields of retries")
            .at("attempts"));
    }
    times("perTryTimeout", retries.per_try_timeout)?;
    times("backoff", retries.backoff)?;
    for token in retries.retry_on.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        let is_status = token.parse().is_ok_and(|code: u32| (200..600).contains(&code));
        if !is_status && !CONDITIONS.contains(&token) {
            let value = token.escape_debug().to_string();
            return Err(Problem::Unknown { value, known: KNOWN_CONDITIONS }.at("retryOn"));
        }
    }
    Ok(())
}

fn check_fault(fault: &VirtualFault) -> Result<(), InvalidObject> {
    if fault.delay.is_none() && fault.abort.is_none() {
        return Err(Problem::Missing("set delay or abort").at(""));
    }
    if let Some(delay) = &fault.delay {
        percentage("delay.percentage", delay.percentage)?;
        if delay.percent.is_some_and(|percent| percent > 100) {
            let value = delay.percent.unwrap_or_default().to_string();
            return Err(Problem::Form { value, form: "0 to 100" }.at("delay.percent"));
        }
        if delay.exponential_delay.is_some() {
            return Err(unsupported().at("delay.exponentialDelay"));
        }
        let Some(fixed) = delay.fixed_delay else {
            return Err(Problem::Missing("say how long").at("delay.fixedDelay"));
        };
        time("delay.fixedDelay", fixed)?;
    }
    let Some(abort) = &fault.abort else { return Ok(()) };
    percentage("abort.percentage", abort.percentage)?;
    match (abort.http_status, &abort.grpc_status, &abort.http2_error) {
        (_, _, Some(_)) => Err(unsupported().at("abort.http2Error")),
        (Some(_), Some(_), None) => Err(Problem::Conflict("httpStatus").at("abort.grpcStatus")),
        (Some(code), None, None) => status("abort.httpStatus", code, 200..=599),
        (None, Some(name), None) if super::traffic::grpc_status(name).is_none() => {
            let value = name.escape_debug().to_string();
            let form = "the name of a status of gRPC, such as UNAVAILABLE";
            Err(Problem::Form { value, form }.at("abort.grpcStatus"))
        }
        (None, Some(_), None) => Ok(()),
        (None, None, None) => Err(Problem::Missing("set it, or grpcStatus").at("abort.httpStatus")),
    }
}

fn check_mirrors(route: &VirtualRoute) -> Result<(), InvalidObject> {
    percentage("mirrorPercentage", route.mirror_percentage)?;
    if let Some(percent) = route.mirror_percent.filter(|percent| *percent > 100) {
        let form = "0 to 100";
        return Err(Problem::Form { value: percent.to_string(), form }.at("mirrorPercent"));
    }
    if let Some(mirror) = &route.mirror {
        check_destination("mirror", mirror)?;
    }
    at_most("mirrors", route.mirrors.len(), MAX_ENTRIES)?;
    each("mirrors", &route.mirrors, |mirror| {
        check_destination("destination", &mirror.destination)?;
        percentage("percentage", mirror.percentage)
    })
}

fn percentage(field: &str, percent: Option<Percent>) -> Result<(), InvalidObject> {
    let Some(Percent { value }) = percent else { return Ok(()) };
    // A millionth is the least share that is told apart from none.
    if value.0 == 0.0 || (0.0001..=100.0).contains(&value.0) {
        return Ok(());
    }
    let form = "0, or 0.0001 to 100";
    Err(Problem::Form { value: value.to_string(), form }.at(&format!("{field}.value")))
}

fn unsupported() -> Problem {
    Problem::Shape("is not supported by any proxy: remove it".to_owned())
}
