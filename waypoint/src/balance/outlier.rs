//! How an endpoint has been doing: one that keeps failing is ejected, each time for longer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    endpoint::Outcome,
    policy::OutlierDetection,
    shared::{Moment, Shared},
};

/// Longest time for which an endpoint is ejected, unless the first time is longer.
const MAX_EJECTION_TIME: Duration = Duration::from_mins(5);

/// Statuses by which a proxy says that it got no answer itself.
const GATEWAY_ERRORS: std::ops::RangeInclusive<u16> = 502..=504;

/// What is known of an endpoint, whatever else changes.
#[derive(Debug)]
pub(super) struct Standing {
    shared: Arc<Shared>,
    /// Requests on their way to it.
    pub(super) active: AtomicU32,
    /// When it was first heard of.
    pub(super) since: Moment,
    errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// A [`Record`] in one word, so that nobody waits.
    record: AtomicU64,
}

/// Whether an endpoint is ejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    state: State,
    /// How often it was ejected of late.
    times: u16,
    /// End of the ejection, or when it was last one less of late.
    at: Moment,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Used,
    Ejected,
    /// No longer an endpoint: it counts among none.
    Gone,
}

// === impl Standing ===

impl Standing {
    pub(super) fn new(shared: Arc<Shared>, now: Instant) -> Self {
        Self {
            since: shared.moment(now),
            shared,
            active: AtomicU32::default(),
            errors: AtomicU32::default(),
            gateway_errors: AtomicU32::default(),
            local_failures: AtomicU32::default(),
            record: AtomicU64::default(),
        }
    }

    /// Returns for how long the endpoint has been known.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.shared.moment(now).since(self.since)
    }

    pub(super) fn is_ejected(&self) -> bool {
        Record::from(self.record.load(Relaxed)).state == State::Ejected
    }

    /// Takes what became of a request. Returns for how long the endpoint is ejected, if this is what
    /// does it.
    pub(super) fn record(
        &self,
        outcome: Outcome,
        policy: &OutlierDetection,
        now: Instant,
    ) -> Option<Duration> {
        let splits = policy.consecutive_local_failures.is_some();
        match outcome {
            Outcome::Abandoned => None,
            Outcome::Response(status) => {
                clear(&self.local_failures);
                if policy.is_error(status) {
                    self.error(GATEWAY_ERRORS.contains(&status), policy, now)
                } else {
                    clear(&self.errors);
                    clear(&self.gateway_errors);
                    None
                }
            }
            Outcome::Connected => {
                clear(&self.local_failures);
                if !splits {
                    clear(&self.errors);
                    clear(&self.gateway_errors);
                }
                None
            }
            Outcome::ConnectFailure | Outcome::Timeout | Outcome::Reset if splits => {
                let reached = reaches(&self.local_failures, policy.consecutive_local_failures);
                reached.then(|| self.eject(&self.shared.ejections.local_failures, policy, now))?
            }
            Outcome::ConnectFailure | Outcome::Timeout | Outcome::Reset => {
                self.error(true, policy, now)
            }
        }
    }

    fn error(&self, of_gateway: bool, policy: &OutlierDetection, now: Instant) -> Option<Duration> {
        let ejections = &self.shared.ejections;
        let gateway_reached = if of_gateway {
            reaches(&self.gateway_errors, policy.consecutive_gateway_errors)
        } else {
            clear(&self.gateway_errors);
            false
        };
        let reached = reaches(&self.errors, policy.consecutive_errors);
        if gateway_reached {
            self.eject(&ejections.gateway_errors, policy, now)
        } else if reached {
            self.eject(&ejections.errors, policy, now)
        } else {
            None
        }
    }

    /// Ejects the endpoint, unless it is already or too many are.
    fn eject(
        &self,
        cause: &AtomicU64,
        policy: &OutlierDetection,
        now: Instant,
    ) -> Option<Duration> {
        let shared = &self.shared;
        if Record::from(self.record.load(Relaxed)).state != State::Used {
            return None;
        }
        let endpoints = u64::from(shared.endpoints.load(Relaxed));
        let allowed = (endpoints * u64::from(policy.max_ejection_percent) / 100).max(1);
        let reserve = |count| (u64::from(count) < allowed).then(|| count + 1);
        if shared.ejected.fetch_update(Relaxed, Relaxed, reserve).is_err() {
            shared.ejections.overflow.fetch_add(1, Relaxed);
            return None;
        }
        let now = shared.moment(now);
        let eject = |record: Record| {
            (record.state == State::Used).then(|| record.ejected(now, policy.base_ejection_time))
        };
        let Some(before) = self.update(eject) else {
            // Another thread was faster.
            shared.ejected.fetch_sub(1, Relaxed);
            return None;
        };
        cause.fetch_add(1, Relaxed);
        Some(before.ejected(now, policy.base_ejection_time).at.since(now))
    }

    /// Has the endpoint used again if its time is over, and forgets one of its ejections if it has
    /// been used for a while.
    pub(super) fn tick(&self, policy: &OutlierDetection, now: Instant) {
        let now = self.shared.moment(now);
        self.change(|record| match record.state {
            State::Ejected if record.at <= now => {
                Some(Record { state: State::Used, at: now, ..record })
            }
            State::Used if record.times > 0 && now.since(record.at) >= policy.interval => {
                Some(Record { times: record.times - 1, at: now, ..record })
            }
            State::Used | State::Ejected | State::Gone => None,
        });
    }

    /// Has the endpoint used, because none are ejected any more.
    pub(super) fn pardon(&self) {
        self.change(|record| (record.state == State::Ejected).then(Record::default));
    }

    /// Notes that this is no endpoint any more.
    pub(super) fn retire(&self) {
        self.change(|record| Some(Record { state: State::Gone, ..record }));
    }

    /// Changes the record to one that is not of an ejection, and counts that.
    fn change(&self, to: impl Fn(Record) -> Option<Record>) {
        if let Some(before) = self.update(to)
            && before.state == State::Ejected
        {
            self.shared.ejected.fetch_sub(1, Relaxed);
            for count in [&self.errors, &self.gateway_errors, &self.local_failures] {
                clear(count);
            }
        }
    }

    /// Returns the record as it was, if it is changed.
    fn update(&self, to: impl Fn(Record) -> Option<Record>) -> Option<Record> {
        let to = |word| to(Record::from(word)).map(u64::from);
        self.record.fetch_update(Relaxed, Relaxed, to).ok().map(Record::from)
    }
}

// === impl Record ===

impl Record {
    fn ejected(self, now: Moment, base: Duration) -> Self {
        let times = self.times.saturating_add(1);
        let longest = MAX_EJECTION_TIME.max(base);
        let time = base.saturating_mul(u32::from(times));
        if time < longest {
            return Self { state: State::Ejected, times, at: now.plus(time) };
        }
        // What is more has no effect, and would take longer to be forgotten.
        let times =
            if base.saturating_mul(u32::from(self.times)) < longest { times } else { self.times };
        Self { state: State::Ejected, times, at: now.plus(longest) }
    }
}

impl From<u64> for Record {
    fn from(word: u64) -> Self {
        let [low, high, state, ..] = word.to_le_bytes();
        let state = match state & 0b111 {
            1 => State::Ejected,
            2 => State::Gone,
            _ => State::Used,
        };
        Self { state, times: u16::from_le_bytes([low, high]), at: Moment(word >> 19) }
    }
}

impl From<Record> for u64 {
    fn from(Record { state, times, at }: Record) -> Self {
        let state = match state {
            State::Used => 0,
            State::Ejected => 1,
            State::Gone => 2,
        };
        at.0 << 19 | state << 16 | u64::from(times)
    }
}

/// Counts one more, and returns whether that are so many in a row; it then begins again.
fn reaches(count: &AtomicU32, threshold: Option<u32>) -> bool {
    let Some(threshold) = threshold else { return false };
    let next = |count: u32| Some(if count + 1 >= threshold { 0 } else { count + 1 });
    count.fetch_update(Relaxed, Relaxed, next).is_ok_and(|count| count + 1 >= threshold)
}

/// Sets a count to zero without taking it from other cores if it is.
fn clear(count: &AtomicU32) {
    if count.load(Relaxed) != 0 {
        count.store(0, Relaxed);
    }
}
