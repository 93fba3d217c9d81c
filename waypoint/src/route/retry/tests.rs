use super::*;

const FINE: Means = Means { replayable: true, admitted: true };

/// Conditions, statuses, and the status and headers of a response that they cover or not.
type Case =
    (&'static [RetryOn], &'static [u32], u16, &'static [(&'static str, &'static str)], bool);

fn policy(on: &[RetryOn], statuses: &[u32]) -> RetryPolicy {
    RetryPolicy::try_from(l7::Retry {
        attempts: 2,
        on: on.iter().map(|condition| i32::from(*condition)).collect(),
        statuses: statuses.to_vec(),
        ..Default::default()
    })
    .unwrap()
}

fn is_covered(on: &[RetryOn], statuses: &[u32], outcome: Outcome<'_>) -> bool {
    policy(on, statuses).covers(outcome)
}

#[test]
fn each_condition_covers_the_responses_that_it_is_for() {
    use RetryOn::{
        GatewayError, GrpcCancelled, GrpcDeadlineExceeded, GrpcInternal, GrpcResourceExhausted,
        GrpcUnavailable, RateLimited, Reset, Retriable4xx, RetriableHeaders, ServerError,
    };
    let table: [Case; 22] = [
        (&[], &[], 503, &[], false),
        (&[ServerError], &[], 500, &[], true),
        (&[ServerError], &[], 599, &[], true),
        (&[ServerError], &[], 499, &[], false),
        (&[GatewayError], &[], 500, &[], false),
        (&[GatewayError], &[], 502, &[], true),
        (&[GatewayError], &[], 504, &[], true),
        (&[GatewayError], &[], 505, &[], false),
        (&[Retriable4xx], &[], 409, &[], true),
        (&[Retriable4xx], &[], 404, &[], false),
        (&[Reset], &[], 503, &[], false),
        (&[RetriableHeaders], &[], 503, &[("x", "y")], false),
        (&[], &[404, 503], 503, &[], true),
        (&[], &[404, 503], 500, &[], false),
        (&[RateLimited], &[], 429, &[("x-envoy-ratelimited", "true")], true),
        (&[ServerError], &[503], 503, &[("x-envoy-ratelimited", "true")], false),
        (&[GrpcUnavailable], &[], 200, &[("grpc-status", "14")], true),
        (&[GrpcUnavailable], &[], 200, &[("grpc-status", "13")], false),
        (&[GrpcInternal], &[], 200, &[("grpc-status", "13")], true),
        (&[GrpcCancelled], &[], 200, &[("grpc-status", "1")], true),
        (&[GrpcDeadlineExceeded], &[], 200, &[("grpc-status", "4")], true),
        (&[GrpcResourceExhausted], &[], 200, &[("grpc-status", "8")], true),
    ];
    for (on, statuses, status, headers, expected) in table {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = headers.collect();
        let status = StatusCode::from_u16(status).unwrap();
        let outcome = Outcome::Response { status, headers: &headers };
        let found = is_covered(on, statuses, outcome);
        assert_eq!(found, expected, "{on:?} {statuses:?} on {status} {headers:?}");
    }
}

#[test]
fn each_condition_covers_the_failures_that_it_is_for() {
    use RetryOn::{
        ConnectFailure, GatewayError, RefusedStream, Reset, ResetBeforeRequest, ServerError,
    };
    let reset = |reason, request_sent| Outcome::Reset { reason, request_sent };
    let refused = reset(ResetReason::RemoteRefusedStream, true);
    let failed = reset(ResetReason::ConnectionFailure, false);
    let late = reset(ResetReason::ConnectionTimeout, false);
    let ended = reset(ResetReason::ConnectionTermination, true);
    let unsent = reset(ResetReason::RemoteReset, false);
    for (on, covered, others) in [
        (ServerError, vec![refused, failed, late, ended, unsent, Outcome::TimedOut], vec![]),
        (GatewayError, vec![refused, failed, late, ended, unsent, Outcome::TimedOut], vec![]),
        (Reset, vec![refused, failed, late, ended, unsent, Outcome::TimedOut], vec![]),
        (ConnectFailure, vec![failed, late], vec![refused, ended, unsent, Outcome::TimedOut]),
        (RefusedStream, vec![refused], vec![failed, late, ended, unsent, Outcome::TimedOut]),
        (ResetBeforeRequest, vec![failed, late, unsent], vec![refused, ended, Outcome::TimedOut]),
    ] {
        for outcome in covered {
            assert!(is_covered(&[on], &[], outcome), "{on:?} on {outcome:?}");
        }
        for outcome in others {
            assert!(!is_covered(&[on], &[], outcome), "{on:?} on {outcome:?}");
        }
    }
    assert!(is_covered(&[], &[504], Outcome::TimedOut));
}

#[test]
fn tries_end_with_what_ended_them() {
    let policy = policy(&[RetryOn::Reset], &[]);
    let failure = Outcome::Reset { reason: ResetReason::RemoteReset, request_sent: true };
    let retry = Next::Retry { pause: Duration::ZERO };
    let mut tries = Tries::default();
    assert_eq!(tries.next(&policy, failure, FINE, 0), retry);
    assert_eq!(tries.next(&policy, failure, FINE, 0), retry);
    assert_eq!(tries.number(), 3);
    let exceeded = Next::GiveUp(Flag::UpstreamRetryLimitExceeded);
    assert_eq!(tries.next(&policy, failure, FINE, 0), exceeded);
    assert_eq!(tries.number(), 3);

    let mut tries = Tries::default();
    let refused = Means { admitted: false, ..FINE };
    let overflow = Next::GiveUp(Flag::UpstreamOverflow);
    assert_eq!(tries.next(&policy, failure, refused, 0), overflow);
    let body_is_gone = Means { replayable: false, ..FINE };
    assert_eq!(tries.next(&policy, failure, body_is_gone, 0), Next::Done);
    let headers = HeaderMap::new();
    let response = Outcome::Response { status: StatusCode::OK, headers: &headers };
    assert_eq!(tries.next(&policy, response, FINE, 0), Next::Done);
    assert_eq!(tries.number(), 1);
}

#[test]
fn a_policy_without_attempts_tries_once_and_does_not_complain() {
    let none = RetryPolicy { attempts: 0, ..policy(&[RetryOn::Reset], &[]) };
    let next = Tries::default().next(&none, Outcome::TimedOut, FINE, 0);
    assert_eq!(next, Next::Done);
}

#[test]
fn pauses_are_random_below_a_bound_that_grows_to_ten_times_the_first() {
    let policy = policy(&[], &[]);
    for (retry, milliseconds) in [(1, 25), (2, 75), (3, 175), (4, 250), (5, 250), (u32::MAX, 250)] {
        let bound = Duration::from_millis(milliseconds);
        let longest = policy.pause(retry, u64::MAX);
        assert!(longest < bound && bound < longest + Duration::from_micros(1), "{retry}");
        assert_eq!(policy.pause(retry, 0), Duration::ZERO);
        let half = policy.pause(retry, u64::MAX / 2 + 1);
        assert_eq!(half, bound / 2);
    }
}

#[test]
fn endpoints_are_told_which_try_they_get() {
    let mut headers = HeaderMap::new();
    headers.insert(ATTEMPT_COUNT, HeaderValue::from_static("77"));
    Tries { retries: 1 }.mark(&mut headers);
    assert_eq!(headers[ATTEMPT_COUNT], "2");
}

#[test]
fn a_policy_that_is_invalid_says_where() {
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    for (wire, field) in [
        (l7::Retry { on: vec![1, 99], ..Default::default() }, "on[1]"),
        (l7::Retry { on: vec![0], ..Default::default() }, "on[0]"),
        (l7::Retry { statuses: vec![600], ..Default::default() }, "statuses[0]"),
        (l7::Retry { per_try_timeout: negative, ..Default::default() }, "per_try_timeout"),
        (l7::Retry { base_interval: negative, ..Default::default() }, "base_interval"),
    ] {
        assert_eq!(RetryPolicy::try_from(wire).unwrap_err().field, field);
    }
}
