//! Whether and when a request is tried again.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mesh_api::proto::l7::{self, RetryOn};

use super::{
    flags::{Flag, ResetReason},
    invalid::{At, Invalid, Problem, each},
    wire::{self, scaled},
};

/// Number of a try, as the endpoint is told.
pub const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Pause before the first retry, at most, where the route says nothing.
const DEFAULT_BASE_INTERVAL: Duration = Duration::from_millis(25);

/// How many times the first pause a later one is, at most.
const MAX_GROWTH: u32 = 10;

/// A response that is no failure of the application's: it must not be tried again as one.
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What is tried again, how often and how fast.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Tries after the first one.
    pub attempts: u32,
    /// How long each try may take; none for as long as all of them may.
    pub per_try_timeout: Option<Duration>,
    /// Whether endpoints that were tried may be tried again.
    pub same_endpoints: bool,
    /// Whether localities that were tried come last.
    pub other_localities: bool,
    on: Conditions,
    statuses: Box<[StatusCode]>,
    base_interval: Duration,
}

/// A set of [`RetryOn`].
#[derive(Clone, Copy, Debug, Default)]
struct Conditions(u32);

/// How a try ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// With a response, of which only the headers are there.
    Response {
        /// Status.
        status: StatusCode,
        /// Headers.
        headers: &'a HeaderMap,
    },
    /// Without one.
    Reset {
        /// How.
        reason: ResetReason,
        /// Whether the endpoint may have seen any of the request.
        request_sent: bool,
    },
    /// It took longer than a try may.
    TimedOut,
}

/// What may keep a request from being tried again.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// Whether all of the request's body so far is still there, to be sent again.
    pub replayable: bool,
    /// Whether the destination admits one more retry.
    pub admitted: bool,
}

/// What follows a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// How it ended is how the request ends.
    Done,
    /// Another try.
    Retry {
        /// After this pause.
        pause: Duration,
    },
    /// How it ended is how the request ends, though it would have been tried again.
    GiveUp(Flag),
}

/// The tries of one request.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    retries: u32,
}

// === impl RetryPolicy ===

impl RetryPolicy {
    /// Returns whether a try that ended so is tried again.
    fn covers(&self, outcome: Outcome<'_>) -> bool {
        match outcome {
            Outcome::Response { status, headers } => self.covers_response(status, headers),
            Outcome::TimedOut => {
                let any = [RetryOn::ServerError, RetryOn::GatewayError, RetryOn::Reset];
                self.on.any(&any) || self.statuses.contains(&StatusCode::GATEWAY_TIMEOUT)
            }
            Outcome::Reset { reason, request_sent } => self.covers_reset(reason, request_sent),
        }
    }

    fn covers_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        if headers.contains_key(RATE_LIMITED) {
            return self.on.any(&[RetryOn::RateLimited]);
        }
        let by_status = match status.as_u16() {
            409 => self.on.any(&[RetryOn::Retriable4xx]),
            502..=504 => self.on.any(&[RetryOn::ServerError, RetryOn::GatewayError]),
            500.. => self.on.any(&[RetryOn::ServerError]),
            _ => false,
        };
        let grpc = headers.get(GRPC_STATUS).map(HeaderValue::as_bytes).and_then(grpc_condition);
        by_status
            || grpc.is_some_and(|condition| self.on.any(&[condition]))
            || self.statuses.contains(&status)
    }

    fn covers_reset(&self, reason: ResetReason, request_sent: bool) -> bool {
        let any = [RetryOn::ServerError, RetryOn::GatewayError, RetryOn::Reset];
        let specific = match reason {
            ResetReason::ConnectionFailure | ResetReason::ConnectionTimeout => {
                Some(RetryOn::ConnectFailure)
            }
            ResetReason::RemoteRefusedStream => Some(RetryOn::RefusedStream),
            ResetReason::ConnectionTermination
            | ResetReason::RemoteReset
            | ResetReason::LocalReset
            | ResetReason::ProtocolError => None,
        };
        self.on.any(&any)
            || specific.is_some_and(|condition| self.on.any(&[condition]))
            || (!request_sent && self.on.any(&[RetryOn::ResetBeforeRequest]))
    }

    /// Returns the pause before a retry, counted from one: any time below a bound that grows.
    fn pause(&self, retry: u32, random: u64) -> Duration {
        let growth = 2_u32.saturating_pow(retry).saturating_sub(1).clamp(1, MAX_GROWTH);
        let bound = self.base_interval.saturating_mul(growth);
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(scaled(random, bound))
    }
}

impl TryFrom<l7::Retry> for RetryPolicy {
    type Error = Invalid;

    fn try_from(wire: l7::Retry) -> Result<Self, Invalid> {
        let mut on = Conditions::default();
        for condition in each(wire.on, "on", condition)? {
            on.insert(condition);
        }
        let base_interval = wire::period(wire.base_interval).at("base_interval")?;
        Ok(Self {
            attempts: wire.attempts,
            per_try_timeout: wire::period(wire.per_try_timeout).at("per_try_timeout")?,
            same_endpoints: wire.same_endpoints,
            other_localities: wire.other_localities,
            on,
            statuses: each(wire.statuses, "statuses", wire::final_status)?,
            base_interval: base_interval.unwrap_or(DEFAULT_BASE_INTERVAL),
        })
    }
}

fn condition(wire: i32) -> Result<RetryOn, Problem> {
    match RetryOn::try_from(wire) {
        Ok(RetryOn::RetryUnspecified) | Err(_) => Err(Problem::Unknown(wire)),
        Ok(condition) => Ok(condition),
    }
}

/// Returns the condition that a status of gRPC is covered by.
fn grpc_condition(status: &[u8]) -> Option<RetryOn> {
    match status {
        b"1" => Some(RetryOn::GrpcCancelled),
        b"4" => Some(RetryOn::GrpcDeadlineExceeded),
        b"8" => Some(RetryOn::GrpcResourceExhausted),
        b"13" => Some(RetryOn::GrpcInternal),
        b"14" => Some(RetryOn::GrpcUnavailable),
        _ => None,
    }
}

// === impl Conditions ===

impl Conditions {
    fn insert(&mut self, condition: RetryOn) {
        self.0 |= 1 << condition as u32;
    }

    fn any(self, conditions: &[RetryOn]) -> bool {
        conditions.iter().any(|condition| self.0 & (1 << *condition as u32) != 0)
    }
}

// === impl Tries ===

impl Tries {
    /// Returns the number of the current try, from one.
    pub fn number(&self) -> u32 {
        self.retries.saturating_add(1)
    }

    /// Tells the endpoint which try it gets.
    pub fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(ATTEMPT_COUNT, HeaderValue::from(self.number()));
    }

    /// Decides what follows the current try.
    pub fn next(
        &mut self,
        policy: &RetryPolicy,
        outcome: Outcome<'_>,
        means: Means,
        random: u64,
    ) -> Next {
        if !policy.covers(outcome) || !means.replayable || policy.attempts == 0 {
            return Next::Done;
        }
        if self.retries >= policy.attempts {
            return Next::GiveUp(Flag::UpstreamRetryLimitExceeded);
        }
        if !means.admitted {
            return Next::GiveUp(Flag::UpstreamOverflow);
        }
        self.retries += 1;
        Next::Retry { pause: policy.pause(self.retries, random) }
    }
}

#[cfg(test)]
mod tests;
