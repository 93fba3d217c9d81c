//! Conditions on requests and calls, and which of them come first.

use std::collections::BTreeSet;

use mesh_api::{
    crd::{
        GrpcMethod, GrpcRouteMatch, HttpRouteMatch, RoutePath, RoutePathKind, RouteValue,
        RouteValueKind,
    },
    proto::l7::{
        HeaderMatch, HttpMatch, PathMatch, QueryMatch, StringMatch, path_match, string_match,
    },
};

use crate::{mesh::l7::order::Order, object::is_expression};

/// Path that every path begins with.
const ROOT: &str = "/";
/// Expression for one element of a path.
const ELEMENT: &str = "[^/]+";

/// Returns the conditions of an entry; none if they cannot be understood.
pub(super) fn http(matched: &HttpRouteMatch) -> Option<HttpMatch> {
    let exact = |text: &String| StringMatch { kind: Some(string_match::Kind::Exact(text.clone())) };
    let query = of_first(&matched.query_params, str::to_owned);
    valid(HttpMatch {
        path: Some(path(matched.path.as_ref())),
        method: matched.method.as_ref().map(exact),
        headers: headers(&matched.headers),
        query: query
            .map(|(name, written)| QueryMatch { name, value: Some(value(written)) })
            .collect(),
        ..HttpMatch::default()
    })
}

/// Appends what decides between entries: the closest path, then as many conditions as there are.
pub(super) fn http_order(order: Order, matched: &HttpRouteMatch) -> Order {
    let text = path_text(matched.path.as_ref());
    let kind = matched.path.as_ref().map_or(RoutePathKind::PathPrefix, |path| path.kind);
    let (class, length) = match kind {
        RoutePathKind::Exact => (0, text.len()),
        RoutePathKind::PathPrefix => (1, text.trim_end_matches('/').len()),
        RoutePathKind::RegularExpression => (2, 0),
    };
    order
        .number(class)
        .descending(length)
        .first(matched.method.is_some())
        .descending(matched.headers.len())
        .descending(matched.query_params.len())
}

/// Returns the conditions of an entry; none if they cannot be understood.
pub(super) fn grpc(matched: &GrpcRouteMatch) -> Option<HttpMatch> {
    valid(HttpMatch {
        path: matched.method.as_ref().and_then(grpc_path),
        headers: headers(&matched.headers),
        ..HttpMatch::default()
    })
}

/// Appends what decides between entries.
pub(super) fn grpc_order(order: Order, matched: &GrpcRouteMatch) -> Order {
    let length = |part: fn(&GrpcMethod) -> Option<&String>| {
        matched.method.as_ref().and_then(part).map_or(0, String::len)
    };
    order
        .descending(length(|method| method.service.as_ref()))
        .descending(length(|method| method.method.as_ref()))
        .descending(matched.headers.len())
}

/// Returns conditions unless one of their expressions is none.
fn valid(conditions: HttpMatch) -> Option<HttpMatch> {
    let path = conditions.path.iter().filter_map(|path| match &path.kind {
        Some(path_match::Kind::Regex(regex)) => Some(regex),
        Some(
            path_match::Kind::Exact(_)
            | path_match::Kind::Prefix(_)
            | path_match::Kind::Elements(_),
        )
        | None => None,
    });
    let headers = conditions.headers.iter().filter_map(|header| header.value.as_ref());
    let values = headers.chain(conditions.query.iter().filter_map(|query| query.value.as_ref()));
    let values = values.filter_map(|value| match &value.kind {
        Some(string_match::Kind::Regex(regex)) => Some(regex),
        _ => None,
    });
    let mut expressions = path.chain(values);
    expressions.all(|regex| is_expression(regex)).then_some(conditions)
}

fn path_text(path: Option<&RoutePath>) -> &str {
    path.and_then(|path| path.value.as_deref()).unwrap_or(ROOT)
}

fn path(written: Option<&RoutePath>) -> PathMatch {
    let text = path_text(written).to_owned();
    let kind = match written.map(|path| path.kind).unwrap_or_default() {
        RoutePathKind::Exact => path_match::Kind::Exact(text),
        RoutePathKind::PathPrefix => path_match::Kind::Elements(text),
        RoutePathKind::RegularExpression => path_match::Kind::Regex(text),
    };
    PathMatch { kind: Some(kind), ignore_case: false }
}

/// Returns the path of the calls that match; none for all.
fn grpc_path(method: &GrpcMethod) -> Option<PathMatch> {
    let part = |part: &Option<String>| part.clone().filter(|text| !text.is_empty());
    let kind = match (method.kind, part(&method.service), part(&method.method)) {
        (_, None, None) => return None,
        (RouteValueKind::Exact, Some(service), Some(method)) => {
            path_match::Kind::Exact(format!("/{service}/{method}"))
        }
        (RouteValueKind::Exact, Some(service), None) => {
            path_match::Kind::Prefix(format!("/{service}/"))
        }
        (RouteValueKind::Exact, None, Some(method)) => {
            path_match::Kind::Regex(format!("/{ELEMENT}/{}", regex_syntax::escape(&method)))
        }
        (RouteValueKind::RegularExpression, service, method) => {
            // A bar in one part must not split the other.
            let text = |part: Option<String>| {
                part.map_or_else(|| ELEMENT.to_owned(), |part| format!("(?:{part})"))
            };
            path_match::Kind::Regex(format!("/{}/{}", text(service), text(method)))
        }
    };
    Some(PathMatch { kind: Some(kind), ignore_case: false })
}

fn headers(written: &[RouteValue]) -> Vec<HeaderMatch> {
    let headers = of_first(written, str::to_ascii_lowercase);
    headers
        .map(|(name, written)| HeaderMatch { name, value: Some(value(written)), invert: false })
        .collect()
}

/// Returns the first value of each name, as the others do not count.
fn of_first(
    written: &[RouteValue],
    name: impl Fn(&str) -> String,
) -> impl Iterator<Item = (String, &RouteValue)> {
    let mut seen = BTreeSet::new();
    let named = written.iter().map(move |value| (name(&value.name), value));
    named.filter(move |(name, _)| seen.insert(name.clone()))
}

fn value(written: &RouteValue) -> StringMatch {
    let kind = match written.kind {
        RouteValueKind::Exact => string_match::Kind::Exact(written.value.clone()),
        RouteValueKind::RegularExpression => string_match::Kind::Regex(written.value.clone()),
    };
    StringMatch { kind: Some(kind) }
}
