//! What is counted for a cluster, whatever becomes of its endpoints and its policy.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::limits::Overflow;

/// What all versions of a cluster share.
#[derive(Debug)]
pub(super) struct Shared {
    /// What [`Moment`]s are relative to.
    epoch: Instant,
    /// Endpoints there are.
    pub(super) endpoints: AtomicU32,
    /// Endpoints that are ejected.
    pub(super) ejected: AtomicU32,
    pub(super) in_use: PerLimit<AtomicU32>,
    pub(super) overflows: PerLimit<AtomicU64>,
    pub(super) ejections: Ejections,
}

/// One of each for everything that is limited.
#[derive(Debug, Default)]
pub(super) struct PerLimit<T> {
    connections: T,
    pending: T,
    requests: T,
    retries: T,
}

/// Numbers of ejections so far, by what led to them.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    pub(super) errors: AtomicU64,
    pub(super) gateway_errors: AtomicU64,
    pub(super) local_failures: AtomicU64,
    /// Those that would have been too many.
    pub(super) overflow: AtomicU64,
}

/// A point in time: milliseconds since the cluster came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) u64);

/// Numbers of a cluster, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Connections there are (`upstream_cx_active`).
    pub connections: u32,
    /// Requests that wait for a connection (`upstream_rq_pending_active`).
    pub pending: u32,
    /// Requests that have a connection (`upstream_rq_active`).
    pub requests: u32,
    /// Requests that are being tried again.
    pub retries: u32,
    /// Connections that would have been too many (`upstream_cx_overflow`).
    pub connection_overflow: u64,
    /// Requests that would have been too many, whether to wait or to be sent
    /// (`upstream_rq_pending_overflow`).
    pub request_overflow: u64,
    /// Retries that would have been too many (`upstream_rq_retry_overflow`).
    pub retry_overflow: u64,
    /// Endpoints that are ejected (`outlier_detection_ejections_active`).
    pub ejections_active: u32,
    /// Ejections for errors (`outlier_detection_ejections_enforced_consecutive_5xx`).
    pub ejections_for_errors: u64,
    /// Ejections for answers of gateways
    /// (`outlier_detection_ejections_enforced_consecutive_gateway_failure`).
    pub ejections_for_gateway_errors: u64,
    /// Ejections for want of answers
    /// (`outlier_detection_ejections_enforced_consecutive_local_origin_failure`).
    pub ejections_for_local_failures: u64,
    /// Ejections that would have been too many (`outlier_detection_ejections_overflow`).
    pub ejections_overflow: u64,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            endpoints: AtomicU32::default(),
            ejected: AtomicU32::default(),
            in_use: PerLimit::default(),
            overflows: PerLimit::default(),
            ejections: Ejections::default(),
        }
    }

    pub(super) fn moment(&self, now: Instant) -> Moment {
        Moment::default().plus(now.saturating_duration_since(self.epoch))
    }

    pub(super) fn statistics(&self) -> Statistics {
        let in_use = |limit| self.in_use.of(limit).load(Relaxed);
        let overflows = |limit| self.overflows.of(limit).load(Relaxed);
        Statistics {
            connections: in_use(Overflow::Connections),
            pending: in_use(Overflow::Pending),
            requests: in_use(Overflow::Requests),
            retries: in_use(Overflow::Retries),
            connection_overflow: overflows(Overflow::Connections),
            request_overflow: overflows(Overflow::Pending) + overflows(Overflow::Requests),
            retry_overflow: overflows(Overflow::Retries),
            ejections_active: self.ejected.load(Relaxed),
            ejections_for_errors: self.ejections.errors.load(Relaxed),
            ejections_for_gateway_errors: self.ejections.gateway_errors.load(Relaxed),
            ejections_for_local_failures: self.ejections.local_failures.load(Relaxed),
            ejections_overflow: self.ejections.overflow.load(Relaxed),
        }
    }
}

// === impl PerLimit ===

impl<T> PerLimit<T> {
    pub(super) fn of(&self, limit: Overflow) -> &T {
        match limit {
            Overflow::Connections => &self.connections,
            Overflow::Pending => &self.pending,
            Overflow::Requests => &self.requests,
            Overflow::Retries => &self.retries,
        }
    }
}

// === impl Moment ===

impl Moment {
    /// Latest moment that the record of an endpoint can hold: 1,100 years.
    const LAST: u64 = (1 << 45) - 1;

    pub(super) fn plus(self, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(Self::LAST);
        Self(self.0.saturating_add(millis).min(Self::LAST))
    }

    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
