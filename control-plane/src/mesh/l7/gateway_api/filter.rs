//! What is done with requests and responses.

use mesh_api::{
    crd::{
        HeaderFilter, PathModifier, RouteCors, RouteFilter, RouteHeader, RouteMirror,
        RouteRedirect, RouteRewrite,
    },
    proto::l7::{
        Cors, Header, HeaderMutation, Mirror, PortOrigin, Redirect, Rewrite, StringMatch, redirect,
        rewrite, string_match,
    },
};

use super::{Source, backend};
use crate::{
    mesh::{
        context::Context,
        l7::{Target, virtual_service::traffic},
    },
    object::{InvalidObject, Problem, Whose, address, header},
};

/// Status of redirects that name none.
const FOUND: u32 = 302;
/// How long the answer to a preflight holds where nobody says, in seconds.
const MAX_AGE: u32 = 5;
/// Millionths of a whole.
const WHOLE: u64 = 1_000_000;
/// Parts of the whole where nobody says how many.
const DENOMINATOR: u32 = 100;

/// All filters of a rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters {
    pub(super) headers: HeaderFilters,
    pub(super) redirect: Option<Redirect>,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) cors: Option<Cors>,
}

/// What filters do with headers.
#[derive(Clone, Debug, Default)]
pub(super) struct HeaderFilters {
    pub(super) request: Option<HeaderMutation>,
    pub(super) response: Option<HeaderMutation>,
}

/// Why filters cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// One is not known, or does not say what it does.
    Unknown(String),
    /// A redirect leaves nothing to rewrite.
    Contradiction,
    /// It is one of a single backend, for which it cannot be done.
    AtBackend(String),
    /// It says what cannot be part of a request or a response.
    Invalid(InvalidObject),
}

/// Returns what the filters of a backend do: for a single one, only headers are changed.
pub(super) fn of_backend(written: &[RouteFilter]) -> Result<HeaderFilters, Unusable> {
    let mut headers = HeaderFilters::default();
    for filter in written {
        if !headers.take(filter)? {
            return Err(Unusable::AtBackend(filter.kind.clone()));
        }
    }
    Ok(headers)
}

/// Returns what the filters of a rule do.
pub(super) fn of_rule(
    context: &mut Context<'_>,
    source: &Source<'_>,
    written: &[RouteFilter],
) -> Result<Filters, Unusable> {
    let mut filters = Filters::default();
    for filter in written {
        if filters.headers.take(filter)? {
            continue;
        }
        let unknown = || Unusable::Unknown(filter.kind.clone());
        match filter.kind.as_str() {
            "RequestRedirect" => {
                let redirect = filter.request_redirect.as_ref().ok_or_else(unknown)?;
                filters.redirect = Some(lower_redirect(redirect).map_err(Unusable::Invalid)?);
            }
            "URLRewrite" => {
                let rewrite = filter.url_rewrite.as_ref().ok_or_else(unknown)?;
                filters.rewrite = Some(lower_rewrite(rewrite).map_err(Unusable::Invalid)?);
            }
            "RequestMirror" => {
                let mirror = filter.request_mirror.as_ref().ok_or_else(unknown)?;
                filters.mirrors.extend(lower_mirror(context, source, mirror));
            }
            "CORS" => {
                filters.cors = Some(lower_cors(filter.cors.as_ref().ok_or_else(unknown)?));
            }
            _ => return Err(unknown()),
        }
    }
    if filters.redirect.is_some() && filters.rewrite.is_some() {
        return Err(Unusable::Contradiction);
    }
    Ok(filters)
}

// === impl HeaderFilters ===

impl HeaderFilters {
    /// Takes a filter up if it is about headers; returns whether it is.
    fn take(&mut self, filter: &RouteFilter) -> Result<bool, Unusable> {
        let unknown = || Unusable::Unknown(filter.kind.clone());
        match filter.kind.as_str() {
            "RequestHeaderModifier" => {
                let written = filter.request_header_modifier.as_ref().ok_or_else(unknown)?;
                let mutation = mutation("requestHeaderModifier", written, Whose::Request);
                self.request = Some(mutation.map_err(Unusable::Invalid)?);
            }
            "ResponseHeaderModifier" => {
                let written = filter.response_header_modifier.as_ref().ok_or_else(unknown)?;
                let mutation = mutation("responseHeaderModifier", written, Whose::Response);
                self.response = Some(mutation.map_err(Unusable::Invalid)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn mutation(
    field: &str,
    written: &HeaderFilter,
    whose: Whose,
) -> Result<HeaderMutation, InvalidObject> {
    let at = |problem: Problem| problem.at(field);
    let headers = |headers: &[RouteHeader]| {
        let headers = headers.iter().map(|RouteHeader { name, value }| {
            header::may_write(name, whose)?;
            header::is_value(value)?;
            // Nothing in it stands for anything else.
            Ok(Header { name: name.to_ascii_lowercase(), value: value.replace('%', "%%") })
        });
        headers.collect::<Result<_, _>>().map_err(at)
    };
    written.remove.iter().try_for_each(|name| header::may_remove(name)).map_err(at)?;
    Ok(HeaderMutation {
        set: headers(&written.set)?,
        add: headers(&written.add)?,
        remove: written.remove.iter().map(|name| name.to_ascii_lowercase()).collect(),
    })
}

fn lower_redirect(written: &RouteRedirect) -> Result<Redirect, InvalidObject> {
    let authority = written.hostname.clone().unwrap_or_default();
    address::authority("requestRedirect.hostname", &authority)?;
    check_path("requestRedirect.path", written.path.as_ref())?;
    let scheme = written.scheme.clone().unwrap_or_default();
    let port = match (written.port, scheme.is_empty()) {
        (Some(number), _) => redirect::Port::Number(number),
        (None, false) => redirect::Port::Derived(PortOrigin::Scheme.into()),
        (None, true) => redirect::Port::Derived(PortOrigin::Listener.into()),
    };
    let path = written.path.as_ref().and_then(|path| {
        let PathModifier { replace_full_path, replace_prefix_match, .. } = path;
        let full = replace_full_path.clone().map(redirect::Path::Full);
        full.or_else(|| replace_prefix_match.clone().map(redirect::Path::Prefix))
    });
    let status = written.status_code.unwrap_or(FOUND);
    Ok(Redirect { scheme, authority, port: Some(port), path, status })
}

fn lower_rewrite(written: &RouteRewrite) -> Result<Rewrite, InvalidObject> {
    let authority = written.hostname.clone().unwrap_or_default();
    address::authority("urlRewrite.hostname", &authority)?;
    check_path("urlRewrite.path", written.path.as_ref())?;
    let path = written.path.as_ref().and_then(|path| {
        let PathModifier { replace_full_path, replace_prefix_match, .. } = path;
        let full = replace_full_path.clone().map(rewrite::Path::Full);
        full.or_else(|| replace_prefix_match.clone().map(rewrite::Path::Prefix))
    });
    Ok(Rewrite { path, authority })
}

fn check_path(field: &str, written: Option<&PathModifier>) -> Result<(), InvalidObject> {
    let Some(PathModifier { replace_full_path, replace_prefix_match, .. }) = written else {
        return Ok(());
    };
    let texts = [replace_full_path, replace_prefix_match];
    texts.into_iter().flatten().try_for_each(|text| address::path(field, text))
}

/// Returns who gets copies; nobody if that cannot be meant.
fn lower_mirror(
    context: &mut Context<'_>,
    source: &Source<'_>,
    written: &RouteMirror,
) -> Option<Mirror> {
    let (Target { service, .. }, port) =
        backend::resolve(context, source, &written.backend_ref).ok()?;
    let by_percent = written.percent.map(|percent| (percent, DENOMINATOR));
    let by_fraction =
        written.fraction.map(|f| (f.numerator, f.denominator.unwrap_or(DENOMINATOR).max(1)));
    let (numerator, denominator) = by_percent.or(by_fraction).unwrap_or((1, 1));
    let share = u64::from(numerator) * WHOLE / u64::from(denominator);
    let per_million = u32::try_from(share.min(WHOLE)).ok().filter(|share| *share > 0)?;
    let (service, subset) = (Some(service), String::new());
    let shadow_suffix = context.options.shadow_suffix;
    Some(Mirror { service, port, subset, per_million, shadow_suffix })
}

fn lower_cors(written: &RouteCors) -> Cors {
    Cors {
        allow_origins: written.allow_origins.iter().map(|origin| lower_origin(origin)).collect(),
        allow_methods: written.allow_methods.clone(),
        allow_headers: written.allow_headers.clone(),
        expose_headers: written.expose_headers.clone(),
        max_age: Some(prost_types::Duration {
            seconds: written.max_age.unwrap_or(MAX_AGE).into(),
            nanos: 0,
        }),
        allow_credentials: written.allow_credentials == Some(true),
        answer_unmatched: true,
    }
}

/// Returns a condition on an origin, in which `*` stands for some labels of the host.
fn lower_origin(origin: &str) -> StringMatch {
    match origin.split_once('*') {
        Some((before, after)) if !(before.is_empty() && after.is_empty()) => {
            let [before, after] = [before, after].map(regex_syntax::escape);
            let regex = format!("{before}.+{after}");
            StringMatch { kind: Some(string_match::Kind::Regex(regex)) }
        }
        Some(_) | None => traffic::exact_origin(origin),
    }
}
