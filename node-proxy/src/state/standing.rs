//! How endpoints have been doing: one that keeps failing is set aside for a while, each time for
//! longer.
//!
//! Being set aside means to be chosen last, not never: where all endpoints fail, all are tried.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Failures without a success in between that set an endpoint aside: one may be chance, and a
/// connection tries as many endpoints itself.
const FAILURES_IN_A_ROW: u8 = 3;

/// Time for which an endpoint is set aside first: a container that died is back after it.
const FIRST_PERIOD: Duration = Duration::from_secs(5);

/// Longest time for which an endpoint is set aside: it is found again soon after it is repaired.
const LONGEST_PERIOD: Duration = Duration::from_mins(5);

/// Time without being set aside after which it is forgotten that an endpoint ever was.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);

/// A point in time: milliseconds since a moment that is the same for the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// How an endpoint has been doing; of no failure is nothing known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    /// Since the last success.
    failures: u8,
    /// How often it was set aside of late.
    periods: u8,
    /// When the latest period ends.
    until: Moment,
}

/// The record of an endpoint, as all threads share it: in one word, so that nobody waits.
#[derive(Debug, Default)]
pub struct Standing(AtomicU64);

// === impl Moment ===

impl Moment {
    /// Latest moment that a record can hold: 8,900 years.
    const LAST: u64 = (1 << 48) - 1;

    /// Returns the moment that lies so long after the beginning.
    pub fn after(time: Duration) -> Self {
        Self(u64::try_from(time.as_millis()).map_or(Self::LAST, |millis| millis.min(Self::LAST)))
    }

    fn plus(self, time: Duration) -> Self {
        Self::after(Duration::from_millis(self.0) + time)
    }
}

// === impl Record ===

impl Record {
    fn is_set_aside(self, now: Moment) -> bool {
        now < self.until
    }

    /// What it is after another failure.
    fn failed(self, now: Moment) -> Self {
        if self.is_set_aside(now) {
            // Chosen for want of others, or before it was set aside: nothing new.
            return self;
        }
        let forgotten = self.periods > 0 && now >= self.until.plus(FORGOTTEN_AFTER);
        let before = if forgotten { Self::default() } else { self };
        let failures = before.failures.saturating_add(1);
        if failures < FAILURES_IN_A_ROW {
            return Self { failures, ..before };
        }
        let periods = before.periods.saturating_add(1);
        // After the period it is on trial: the first failure ends it.
        let failures = FAILURES_IN_A_ROW - 1;
        Self { failures, periods, until: now.plus(period(periods)) }
    }

    fn succeeded(self) -> Self {
        Self { failures: 0, ..self }
    }
}

/// Returns the length of a period: twice that of the one before.
fn period(number: u8) -> Duration {
    let doubled = 1_u32.checked_shl(u32::from(number.saturating_sub(1)));
    let period = doubled.and_then(|times| FIRST_PERIOD.checked_mul(times));
    period.unwrap_or(LONGEST_PERIOD).min(LONGEST_PERIOD)
}

impl From<u64> for Record {
    fn from(word: u64) -> Self {
        let [failures, periods, ..] = word.to_le_bytes();
        Self { failures, periods, until: Moment(word >> 16) }
    }
}

impl From<Record> for u64 {
    fn from(Record { failures, periods, until }: Record) -> Self {
        until.0 << 16 | u64::from(periods) << 8 | u64::from(failures)
    }
}

// === impl Standing ===

impl Standing {
    /// Returns whether the endpoint is one to choose last.
    pub fn is_set_aside(&self, now: Moment) -> bool {
        Record::from(self.0.load(Relaxed)).is_set_aside(now)
    }

    /// Notes that a connection to the endpoint could not be made. Returns for how long the endpoint
    /// is set aside, if this is what does it.
    pub fn failed(&self, now: Moment) -> Option<Duration> {
        let failed = |word| Some(Record::from(word).failed(now).into());
        let before = match self.0.fetch_update(Relaxed, Relaxed, failed) {
            Ok(before) | Err(before) => Record::from(before),
        };
        let after = before.failed(now);
        let is_news = after.until != before.until;
        is_news.then(|| Duration::from_millis(after.until.0.saturating_sub(now.0)))
    }

    /// Notes that a connection to the endpoint was made.
    pub fn succeeded(&self) {
        // What all connections write to would be passed from core to core.
        if Record::from(self.0.load(Relaxed)).failures > 0 {
            let succeeded = |word| Some(Record::from(word).succeeded().into());
            // It never gives up, so there is nothing to know.
            let _ = self.0.fetch_update(Relaxed, Relaxed, succeeded);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after(Duration::from_secs(seconds))
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Fails,
        Succeeds,
    }
    use Event::{Fails, Succeeds};

    #[test]
    fn an_endpoint_that_keeps_failing_is_set_aside_each_time_for_longer() {
        for (what, events, expected) in [
            ("never used", &[][..], 0),
            ("two failures", &[(0, Fails), (0, Fails)], 0),
            ("three in a row", &[(0, Fails), (1, Fails), (2, Fails)], 7),
            ("a success between", &[(0, Fails), (0, Fails), (0, Succeeds), (0, Fails)], 0),
            (
                "failures while it is set aside add nothing",
                &[(0, Fails), (0, Fails), (0, Fails), (1, Fails), (4, Fails)],
                5,
            ),
            (
                "the first failure after it doubles the time",
                &[(0, Fails), (0, Fails), (0, Fails), (5, Fails)],
                15,
            ),
            ("again", &[(0, Fails), (0, Fails), (0, Fails), (5, Fails), (15, Fails)], 35),
            (
                "a success gives back three failures, and not the short time",
                &[
                    (0, Fails),
                    (0, Fails),
                    (0, Fails),
                    (5, Succeeds),
                    (6, Fails),
                    (6, Fails),
                    (6, Fails),
                ],
                16,
            ),
            (
                "after a good while it begins anew",
                &[(0, Fails), (0, Fails), (0, Fails), (305, Fails), (305, Fails), (305, Fails)],
                310,
            ),
        ] {
            let standing = Standing::default();
            for (time, event) in events {
                match event {
                    Fails => drop(standing.failed(at(*time))),
                    Succeeds => standing.succeeded(),
                }
            }
            let last = events.last().map_or(0, |(time, _)| *time);
            let end = (last..10_000).find(|time| !standing.is_set_aside(at(*time))).unwrap();
            assert_eq!(if end == last { 0 } else { end }, expected, "{what}");
        }
    }

    #[test]
    fn the_time_is_told_once_and_has_an_end() {
        let standing = Standing::default();
        let mut now = 0;
        let mut told = Vec::new();
        for _ in 0..400 {
            if let Some(time) = standing.failed(at(now)) {
                told.push(time.as_secs());
                assert_eq!(standing.failed(at(now)), None);
                now += time.as_secs();
            }
        }
        assert_eq!(told[..8], [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(told.len(), 398);
        assert!(told[8..].iter().all(|time| *time == 300));
    }

    /// The rule in other words: over all that happened.
    fn expected_end(history: &[(u64, Event)]) -> u64 {
        let (mut ends, mut streak) = (Vec::<u64>::new(), 0);
        for (now, event) in history {
            let last = ends.last().copied().unwrap_or(0);
            match event {
                Succeeds => streak = 0,
                Fails if *now < last => {}
                Fails => {
                    if !ends.is_empty() && *now >= last + FORGOTTEN_AFTER.as_secs() {
                        (ends, streak) = (Vec::new(), 0);
                    }
                    streak += 1;
                    if streak >= FAILURES_IN_A_ROW {
                        let doublings = i32::try_from(ends.len().min(30)).unwrap();
                        let time = FIRST_PERIOD.as_secs() * 2_u64.pow(doublings.unsigned_abs());
                        ends.push(now + time.min(LONGEST_PERIOD.as_secs()));
                        streak = FAILURES_IN_A_ROW - 1;
                    }
                }
            }
        }
        ends.last().copied().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn whatever_happens_the_rule_holds(
            steps in vec((prop_oneof![9 => 0..20_u64, 1 => 0..700_u64], any::<bool>()), 0..60),
        ) {
            let standing = Standing::default();
            let (mut now, mut history) = (0, Vec::new());
            for (pause, fails) in steps {
                now += pause;
                if fails {
                    standing.failed(at(now));
                } else {
                    standing.succeeded();
                }
                history.push((now, if fails { Fails } else { Succeeds }));
                let end = expected_end(&history);
                prop_assert_eq!(standing.is_set_aside(at(now)), now < end, "{:?}", history);
                prop_assert!(!standing.is_set_aside(at(end)), "{:?}", history);
            }
        }

        #[test]
        fn a_record_fits_its_word(failures: u8, periods: u8, until in 0..=Moment::LAST) {
            let record = Record { failures, periods, until: Moment(until) };
            prop_assert_eq!(Record::from(u64::from(record)), record);
        }
    }
}
