//! What is done with HTTP requests.

use mesh_api::{
    crd::{PortDerivation, VirtualRedirect, VirtualResponse, VirtualRewrite, VirtualRoute},
    proto::l7::{
        DirectResponse, Forward, HttpMatch, HttpRoute, PathMatch, PortOrigin, Redirect,
        RegexRewrite, Rewrite, http_route::Action, path_match, redirect, rewrite,
    },
};

use super::{Source, traffic};
use crate::{mesh::context::Context, object::base64};

/// Status of redirects that name none.
const MOVED: u32 = 301;

/// Returns a route for the requests of which `conditions` hold.
pub(super) fn lower(
    context: &mut Context<'_>,
    source: &Source<'_>,
    route: &VirtualRoute,
    mut conditions: HttpMatch,
) -> HttpRoute {
    let replaces_prefix = route.rewrite.as_ref().is_some_and(|rewrite| !rewrite.uri.is_empty())
        || route.redirect.as_ref().is_some_and(|redirect| redirect.prefix_rewrite.is_some());
    if replaces_prefix && conditions.path.is_none() {
        // What is replaced is the root, which every path begins with.
        let kind = Some(path_match::Kind::Prefix("/".to_owned()));
        conditions.path = Some(PathMatch { kind, ignore_case: false });
    }
    let headers = route.headers.as_ref();
    let request = headers.map(|headers| traffic::mutation(&headers.request));
    let action = match (&route.redirect, &route.direct_response) {
        (Some(redirect), _) => Action::Redirect(lower_redirect(redirect)),
        (None, Some(response)) => Action::DirectResponse(lower_response(response)),
        (None, None) => Action::Forward(Forward {
            rewrite: route
                .rewrite
                .as_ref()
                .and_then(|rewrite| lower_rewrite(rewrite, conditions.path.as_ref())),
            ..traffic::forward(context, source, route)
        }),
    };
    HttpRoute {
        r#match: Some(conditions),
        request_headers: request.filter(traffic::does_something),
        response_headers: headers
            .map(|headers| traffic::mutation(&headers.response))
            .filter(traffic::does_something),
        fault: route.fault.as_ref().and_then(traffic::fault),
        cors: route.cors_policy.as_ref().map(traffic::cors),
        action: Some(action),
    }
}

fn lower_redirect(written: &VirtualRedirect) -> Redirect {
    let port = match (written.port, written.derive_port) {
        (Some(number), _) => Some(redirect::Port::Number(number)),
        (None, Some(PortDerivation::FromProtocolDefault)) => Some(derived(PortOrigin::Scheme)),
        (None, Some(PortDerivation::FromRequestPort)) => Some(derived(PortOrigin::Listener)),
        // That of the authority, which is the request's unless another one is written.
        (None, None) => None,
    };
    let prefix = written.prefix_rewrite.clone().map(redirect::Path::Prefix);
    let full = written.uri.clone().filter(|uri| !uri.is_empty()).map(redirect::Path::Full);
    Redirect {
        scheme: written.scheme.clone(),
        authority: written.authority.clone(),
        port,
        path: full.or(prefix),
        status: match written.redirect_code {
            0 => MOVED,
            status => status,
        },
    }
}

fn derived(origin: PortOrigin) -> redirect::Port {
    redirect::Port::Derived(origin.into())
}

fn lower_response(written: &VirtualResponse) -> DirectResponse {
    let body = written.body.as_ref().and_then(|body| {
        let text = body.string.as_ref().map(|text| text.clone().into_bytes());
        text.or_else(|| base64(body.bytes.as_deref()?))
    });
    DirectResponse { status: written.status, body: body.unwrap_or_default().into() }
}

fn lower_rewrite(written: &VirtualRewrite, path: Option<&PathMatch>) -> Option<Rewrite> {
    let authority = written.authority.clone();
    let rewrite = Rewrite { path: rewritten_path(written, path), authority };
    (rewrite != Rewrite::default()).then_some(rewrite)
}

fn rewritten_path(written: &VirtualRewrite, path: Option<&PathMatch>) -> Option<rewrite::Path> {
    if let Some(regex) = &written.uri_regex_rewrite {
        return Some(rewrite::Path::Regex(RegexRewrite {
            pattern: regex.pattern.clone(),
            substitution: regex.rewrite.clone(),
        }));
    }
    // What an expression matched is all of the path, and no prefix of it.
    let by_expression =
        path.is_some_and(|path| matches!(path.kind, Some(path_match::Kind::Regex(_))));
    let uri = Some(&written.uri).filter(|uri| !uri.is_empty() && !by_expression)?;
    Some(rewrite::Path::Prefix(uri.clone()))
}
