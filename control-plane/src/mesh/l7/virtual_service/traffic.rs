//! Where requests are forwarded to, and what happens on the way.

use std::time::Duration;

use mesh_api::{
    crd::{
        HeaderOperations, Percent, Text, Time, UnmatchedPreflights, VirtualCors,
        VirtualDestination, VirtualFault, VirtualRetries, VirtualRoute,
    },
    proto::l7::{
        Abort, Cors, Delay, Fault, Forward, Header, HeaderMutation, Mirror, Retry, RetryOn,
        StringMatch, WeightedDestination, abort, string_match,
    },
};

use super::Source;
use crate::mesh::{
    context::Context,
    l7::{Target, matching, nowhere, target},
};
use crate::object::grpc_status;

/// Retries where nobody says how many.
const DEFAULT_ATTEMPTS: u32 = 2;
/// When requests are tried again where nobody says when.
pub(in crate::mesh::l7) const DEFAULT_CONDITIONS: [RetryOn; 4] = [
    RetryOn::ConnectFailure,
    RetryOn::RefusedStream,
    RetryOn::GrpcUnavailable,
    RetryOn::GrpcCancelled,
];
/// Millionths of a whole.
const WHOLE: u32 = 1_000_000;
/// Millionths of a percent.
const PERCENT: u32 = 10_000;

/// Returns where the requests of a route are forwarded to, without what is written anew.
pub(super) fn forward(
    context: &mut Context<'_>,
    source: &Source<'_>,
    route: &VirtualRoute,
) -> Forward {
    let is_only = route.route.len() == 1;
    let destinations = route.route.iter().map(|to| {
        let headers = to.headers.as_ref();
        let request = headers.map(|headers| mutation(&headers.request));
        let response = headers.map(|headers| mutation(&headers.response));
        WeightedDestination {
            request_headers: request.filter(does_something),
            response_headers: response.filter(does_something),
            ..destination(context, source, &to.destination, to.weight, is_only)
        }
    });
    Forward {
        destinations: destinations.collect(),
        rewrite: None,
        timeout: limit(route.timeout),
        retry: retry(context, route.retries.as_ref()),
        mirrors: mirrors(context, source, route),
    }
}

/// Returns a destination with its share; the only one gets everything.
pub(super) fn destination(
    context: &mut Context<'_>,
    source: &Source<'_>,
    written: &VirtualDestination,
    weight: i64,
    is_only: bool,
) -> WeightedDestination {
    let (Target { service, .. }, port) = resolve(context, source, written);
    let weight = u32::try_from(weight).unwrap_or_default();
    WeightedDestination {
        service: Some(service),
        port,
        subset: written.subset.clone(),
        weight: if is_only { weight.max(1) } else { weight },
        ..WeightedDestination::default()
    }
}

/// Returns the service that is meant, and its port: the one that is named, otherwise the only one;
/// 0 for the one that the traffic is addressed to.
fn resolve(
    context: &mut Context<'_>,
    source: &Source<'_>,
    written: &VirtualDestination,
) -> (Target, u32) {
    let namespace = source.service.metadata.namespace();
    let host = context.store.expanded(namespace, &written.host);
    let found = target(context, &source.scope.consumer, &host);
    let target = found.unwrap_or_else(|| nowhere(namespace, &host));
    let port = match (written.port.number, target.ports.as_slice()) {
        (0, [only]) => *only,
        (number, _) => number,
    };
    (target, port)
}

fn mirrors(context: &mut Context<'_>, source: &Source<'_>, route: &VirtualRoute) -> Vec<Mirror> {
    let older = route.mirror_percent.map(|percent| percent.saturating_mul(PERCENT).min(WHOLE));
    let share = route.mirror_percentage.map(millionths).or(older);
    let single = route.mirror.iter().map(|to| (to, share));
    let several = route.mirrors.iter().map(|m| (&m.destination, m.percentage.map(millionths)));
    let mut mirrors = Vec::new();
    for (written, share) in single.chain(several) {
        let (Target { service, .. }, port) = resolve(context, source, written);
        let subset = written.subset.clone();
        let per_million = share.unwrap_or(WHOLE);
        if per_million > 0 {
            let (service, shadow_suffix) = (Some(service), context.options.shadow_suffix);
            mirrors.push(Mirror { service, port, subset, per_million, shadow_suffix });
        }
    }
    mirrors
}

/// Returns when and how requests are tried again.
pub(in crate::mesh::l7) fn retry(
    context: &Context<'_>,
    written: Option<&VirtualRetries>,
) -> Option<Retry> {
    let Some(written) = written.or(context.settings.default_retries.as_ref()) else {
        let on = DEFAULT_CONDITIONS.map(i32::from).to_vec();
        return Some(Retry { attempts: DEFAULT_ATTEMPTS, on, ..Retry::default() });
    };
    let attempts = u32::try_from(written.attempts).unwrap_or_default();
    if attempts == 0 {
        return None;
    }
    let (on, statuses) = conditions(&written.retry_on);
    Some(Retry {
        attempts,
        per_try_timeout: limit(written.per_try_timeout),
        on,
        statuses,
        base_interval: limit(written.backoff),
        same_endpoints: written.retry_ignore_previous_hosts == Some(false),
        other_localities: written.retry_remote_localities == Some(true),
    })
}

/// Returns the conditions of a list, and the statuses in it.
fn conditions(list: &str) -> (Vec<i32>, Vec<u32>) {
    let (mut on, mut statuses) = (Vec::new(), Vec::new());
    let mut given = false;
    for token in list.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        given = true;
        match token.parse() {
            Ok(status) => statuses.push(status),
            Err(_) => on.extend(condition(token).map(i32::from)),
        }
    }
    if !given {
        on = DEFAULT_CONDITIONS.map(i32::from).to_vec();
    }
    (on, statuses)
}

fn condition(token: &str) -> Option<RetryOn> {
    Some(match token {
        "5xx" => RetryOn::ServerError,
        "gateway-error" => RetryOn::GatewayError,
        "reset" => RetryOn::Reset,
        "reset-before-request" => RetryOn::ResetBeforeRequest,
        "connect-failure" => RetryOn::ConnectFailure,
        "envoy-ratelimited" => RetryOn::RateLimited,
        "retriable-4xx" => RetryOn::Retriable4xx,
        "refused-stream" => RetryOn::RefusedStream,
        "retriable-headers" => RetryOn::RetriableHeaders,
        "cancelled" => RetryOn::GrpcCancelled,
        "deadline-exceeded" => RetryOn::GrpcDeadlineExceeded,
        "internal" => RetryOn::GrpcInternal,
        "resource-exhausted" => RetryOn::GrpcResourceExhausted,
        "unavailable" => RetryOn::GrpcUnavailable,
        // The former by the statuses themselves, the latter by nobody.
        _ => return None,
    })
}

/// Returns what goes wrong on purpose, unless nothing does.
pub(super) fn fault(written: &VirtualFault) -> Option<Fault> {
    let delay = written.delay.as_ref().and_then(|delay| {
        let older = delay.percent.map(|percent| percent.saturating_mul(PERCENT).min(WHOLE));
        let per_million = delay.percentage.map(millionths).or(older).unwrap_or_default();
        let duration = limit(delay.fixed_delay)?;
        (per_million > 0).then_some(Delay { duration: Some(duration), per_million })
    });
    let abort = written.abort.as_ref().and_then(|abort| {
        let per_million = abort.percentage.map(millionths).unwrap_or_default();
        let by_name = || grpc_status(abort.grpc_status.as_deref()?).map(abort::With::GrpcStatus);
        let with = abort.http_status.map(abort::With::HttpStatus).or_else(by_name)?;
        (per_million > 0).then_some(Abort { with: Some(with), per_million })
    });
    (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
}

/// Returns which scripts may ask.
pub(super) fn cors(written: &VirtualCors) -> Cors {
    let older = written.allow_origin.iter().map(|origin| exact_origin(origin));
    let origins = written.allow_origins.iter().map(|origin| match origin {
        Text { exact: Some(exact), .. } => exact_origin(exact),
        other => matching::string(other),
    });
    Cors {
        allow_origins: older.chain(origins).collect(),
        allow_methods: written.allow_methods.clone(),
        allow_headers: written.allow_headers.clone(),
        expose_headers: written.expose_headers.clone(),
        max_age: written.max_age.map(duration),
        allow_credentials: written.allow_credentials == Some(true),
        answer_unmatched: written.unmatched_preflights == UnmatchedPreflights::Ignore,
    }
}

/// Returns a condition on an origin; `*` stands for every one.
pub(in crate::mesh::l7) fn exact_origin(origin: &str) -> StringMatch {
    let kind = match origin {
        "*" => string_match::Kind::Present(true),
        exact => string_match::Kind::Exact(exact.to_owned()),
    };
    StringMatch { kind: Some(kind) }
}

/// Returns what is done with headers; `host` among those of requests stands for the authority.
pub(super) fn mutation(written: &HeaderOperations) -> HeaderMutation {
    let headers = |headers: &std::collections::BTreeMap<String, String>| {
        let headers = headers.iter();
        headers
            .map(|(name, value)| Header { name: name.to_ascii_lowercase(), value: value.clone() })
            .collect()
    };
    HeaderMutation {
        set: headers(&written.set),
        add: headers(&written.add),
        remove: written.remove.iter().map(|name| name.to_ascii_lowercase()).collect(),
    }
}

/// Returns whether headers are changed at all.
pub(super) fn does_something(mutation: &HeaderMutation) -> bool {
    *mutation != HeaderMutation::default()
}

/// Returns a share in millionths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 0 and a million"
)]
fn millionths(Percent { value }: Percent) -> u32 {
    (value.0 * f64::from(PERCENT)).round().clamp(0.0, f64::from(WHOLE)) as u32
}

/// Returns a time that limits something; none if it is zero, which stands for no limit.
pub(in crate::mesh::l7) fn limit(time: Option<Time>) -> Option<prost_types::Duration> {
    time.filter(|Time(time)| *time > Duration::ZERO).map(duration)
}

/// Returns the wire form of a time.
pub(in crate::mesh::l7) fn duration(Time(time): Time) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or_default(),
    }
}
