//! How many connections and requests there may be at once (circuit breaking).

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    policy::{Policy, RetryBudget},
    shared::Shared,
};

/// What holds where no rule limits retries: endpoints that are all down get a fifth more than they would
/// without retries, as one of six requests under way may be one; and hardly used ones are still tried
/// again.
const DEFAULT_RETRY_BUDGET: RetryBudget = RetryBudget { percent: 100.0 / 6.0, min_concurrency: 3 };

/// What there are as many of as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overflow {
    /// Connections: a request may wait for one; what has no requests is refused.
    #[error("too many connections")]
    Connections,
    /// Requests that wait: one more is refused.
    #[error("too many requests wait for a connection")]
    Pending,
    /// Requests on connections: one more is refused.
    #[error("too many requests")]
    Requests,
    /// Retries: what the last try brought is the answer.
    #[error("too many retries")]
    Retries,
}

/// A place among those that are limited, taken while this lives.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    of: Overflow,
}

// === impl Permit ===

impl Permit {
    pub(super) fn take(
        shared: &Arc<Shared>,
        policy: &Policy,
        of: Overflow,
    ) -> Result<Self, Overflow> {
        let limit = limit(shared, policy, of);
        let one_more = |count| (count < limit).then(|| count + 1);
        if shared.in_use.of(of).fetch_update(Relaxed, Relaxed, one_more).is_err() {
            shared.overflows.of(of).fetch_add(1, Relaxed);
            return Err(of);
        }
        Ok(Self { shared: shared.clone(), of })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.in_use.of(self.of).fetch_sub(1, Relaxed);
    }
}

fn limit(shared: &Shared, policy: &Policy, of: Overflow) -> u32 {
    let pool = &policy.pool;
    let budget = policy
        .retry_budget
        .or_else(|| (pool.max_retries == u32::MAX).then_some(DEFAULT_RETRY_BUDGET));
    match (of, budget) {
        (Overflow::Connections, _) => pool.max_connections,
        (Overflow::Pending, _) => pool.max_pending_requests,
        (Overflow::Requests, _) => pool.max_requests,
        (Overflow::Retries, None) => pool.max_retries,
        (Overflow::Retries, Some(budget)) => {
            let in_use = |of| f64::from(shared.in_use.of(of).load(Relaxed));
            let requests = in_use(Overflow::Pending) + in_use(Overflow::Requests);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a percentage of a count is not negative, and the cast saturates"
            )]
            let share = (requests * budget.percent / 100.0) as u32;
            share.max(budget.min_concurrency)
        }
    }
}
