//! Who leads: pure; times are given, and those of other machines are never compared with them.
//!
//! A candidate takes a lease over when it has seen nothing of its holder for as long as the lease
//! runs, by its own clock. A leader leads for a shorter time after it has renewed, counted from when
//! it asked, so that it has stopped before anyone else can begin.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::{Duration, Instant};

/// How long things take; from one time, by the shares that Istio uses or longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    /// Time without a sign of the holder after which others take over.
    pub(super) duration: Duration,
    /// Time after a renewal for which a leader leads.
    pub(super) leading: Duration,
    /// Time from one attempt to the next.
    pub(super) pause: Duration,
}

/// What a lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Who has it; empty if it was given up.
    pub(super) holder: String,
    /// Time for which its holder wants to be waited for, if it says so.
    pub(super) duration: Option<Duration>,
    /// Since when its holder has it, by the holder's clock; for people only.
    pub(super) acquired: Option<MicroTime>,
    /// How often it has changed hands.
    pub(super) transitions: i32,
    /// Version of the object, which changes with every renewal.
    pub(super) version: String,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Make the lease.
    Create,
    /// Become its holder.
    Take,
    /// Hold it for longer.
    Renew,
    /// Leave it to its holder.
    Wait,
}

/// What one candidate has seen.
#[derive(Debug)]
pub(super) struct Election {
    me: String,
    timing: Timing,
    /// The lease as it was seen last, and when it was seen first like this.
    seen: Option<(Record, Instant)>,
    leads_until: Option<Instant>,
}

// === impl Timing ===

impl Timing {
    pub(super) fn of(duration: Duration) -> Self {
        Self { duration, leading: duration * 2 / 3, pause: duration / 6 }
    }
}

// === impl Election ===

impl Election {
    pub(super) fn new(me: String, timing: Timing) -> Self {
        Self { me, timing, seen: None, leads_until: None }
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    pub(super) fn me(&self) -> &str {
        &self.me
    }

    /// Returns the lease as this candidate wrote it, while it leads and nobody has interfered.
    pub(super) fn own(&self, now: Instant) -> Option<&Record> {
        let (record, _) = self.seen.as_ref()?;
        (self.leads_until? > now && record.holder == self.me).then_some(record)
    }

    /// Returns until when this candidate leads, if it does.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        self.leads_until
    }

    /// Takes note of the lease, if there is one, and returns what to do.
    pub(super) fn see(&mut self, lease: Option<Record>, now: Instant) -> Move {
        let Some(record) = lease else {
            self.forget();
            return Move::Create;
        };
        if record.holder == self.me {
            self.seen = Some((record, now));
            return Move::Renew;
        }
        self.leads_until = None;
        let since = match self.seen.take() {
            Some((old, since)) if old == record => since,
            Some(_) | None => now,
        };
        let wait = record.duration.unwrap_or(self.timing.duration);
        let is_free = record.holder.is_empty() || now.duration_since(since) >= wait;
        self.seen = Some((record, since));
        if is_free { Move::Take } else { Move::Wait }
    }

    /// Takes note that this candidate wrote the lease, asked for at `asked`.
    pub(super) fn wrote(&mut self, record: Record, asked: Instant) {
        self.leads_until = Some(asked + self.timing.leading);
        self.seen = Some((record, asked));
    }

    /// Takes note that somebody else wrote the lease in the meantime.
    pub(super) fn was_overtaken(&mut self) {
        self.forget();
    }

    /// Takes note that this candidate does not want to lead any more.
    pub(super) fn stop(&mut self) {
        self.leads_until = None;
    }

    fn forget(&mut self) {
        self.seen = None;
        self.leads_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn record(holder: &str, version: u32) -> Record {
        let version = version.to_string();
        Record {
            holder: holder.to_owned(),
            duration: Some(seconds(30)),
            acquired: None,
            transitions: 0,
            version,
        }
    }

    fn candidate() -> Election {
        Election::new("a".to_owned(), Timing::of(seconds(30)))
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_and_left_to_whoever_renews_it() {
        // What is seen after which seconds, and what to do then.
        type Seen = (u64, Option<Record>, Move);
        let start = Instant::now();
        let cases: [&[Seen]; 6] = [
            &[(0, None, Move::Create)],
            &[(0, Some(record("", 1)), Move::Take)],
            &[(0, Some(record("a", 1)), Move::Renew), (100, Some(record("a", 2)), Move::Renew)],
            &[
                (0, Some(record("b", 1)), Move::Wait),
                (29, Some(record("b", 1)), Move::Wait),
                (30, Some(record("b", 1)), Move::Take),
            ],
            &[
                (0, Some(record("b", 1)), Move::Wait),
                (29, Some(record("b", 2)), Move::Wait),
                (58, Some(record("b", 2)), Move::Wait),
                (59, Some(record("b", 2)), Move::Take),
            ],
            // Another one was quicker.
            &[
                (0, Some(record("b", 1)), Move::Wait),
                (30, Some(record("c", 2)), Move::Wait),
                (31, None, Move::Create),
            ],
        ];
        for case in cases {
            let mut election = candidate();
            for (after, lease, expected) in case {
                let found = election.see(lease.clone(), start + seconds(*after));
                assert_eq!(found, *expected, "{case:?} at {after}");
            }
        }
    }

    #[test]
    fn a_holder_is_waited_for_as_long_as_it_says() {
        let (mut election, start) = (candidate(), Instant::now());
        let patient = Record { duration: Some(MINUTE), ..record("b", 1) };
        assert_eq!(election.see(Some(patient.clone()), start), Move::Wait);
        assert_eq!(election.see(Some(patient.clone()), start + seconds(59)), Move::Wait);
        assert_eq!(election.see(Some(patient), start + MINUTE), Move::Take);
        let silent = Record { duration: None, ..record("b", 2) };
        assert_eq!(election.see(Some(silent.clone()), start), Move::Wait);
        assert_eq!(election.see(Some(silent), start + seconds(30)), Move::Take);
    }

    #[test]
    fn a_leader_stops_before_anyone_else_can_begin() {
        let (mut leader, start) = (candidate(), Instant::now());
        let mut other = Election::new("b".to_owned(), Timing::of(seconds(30)));
        // The other one can see the renewal at once, before its answer has come.
        leader.wrote(record("a", 1), start);
        assert_eq!(other.see(Some(record("a", 1)), start), Move::Wait);
        let end = leader.leads_until().unwrap();
        assert_eq!(other.see(Some(record("a", 1)), end + seconds(9)), Move::Wait);
        assert_eq!(leader.own(end), None);
        assert!(leader.own(end.checked_sub(seconds(1)).unwrap()).is_some());
    }

    #[test]
    fn a_leader_that_was_overtaken_or_replaced_leads_no_more() {
        let now = Instant::now();
        let leading = || {
            let mut election = candidate();
            election.wrote(record("a", 1), now);
            election
        };
        let mut overtaken = leading();
        overtaken.was_overtaken();
        assert_eq!(overtaken.leads_until(), None);
        let mut replaced = leading();
        assert_eq!(replaced.see(Some(record("b", 2)), now), Move::Wait);
        assert_eq!(replaced.leads_until(), None);
        let mut removed = leading();
        assert_eq!(removed.see(None, now), Move::Create);
        assert_eq!(removed.leads_until(), None);
    }
}
