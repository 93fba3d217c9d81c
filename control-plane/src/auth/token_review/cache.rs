//! What is known of tokens. Pure: times are given.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::auth::{Caller, digest::Digest};

/// Time that a good token is taken for good: as long as one may be in use after its pod is gone.
pub(super) const TTL: Duration = Duration::from_mins(1);

/// Most tokens remembered: those of 5,000 nodes, which Kubernetes renews while the old ones are
/// still good.
pub(super) const MAX_TOKENS: usize = 10_000;

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known<F> {
    /// It was asked about.
    Asked(F),
    /// It belongs to this caller.
    Caller(Caller),
}

/// What is known of tokens, while it is.
#[derive(Debug)]
pub(super) struct Cache<F>(HashMap<Digest, (Known<F>, Instant)>);

// === impl Cache ===

impl<F> Default for Cache<F> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<F: Clone> Cache<F> {
    /// Returns what is known of a token.
    pub(super) fn get(&self, digest: &Digest, now: Instant) -> Option<Known<F>> {
        let (known, until) = self.0.get(digest)?;
        (now < *until).then(|| known.clone())
    }

    /// Takes note that a token is being asked about.
    pub(super) fn asked(&mut self, digest: Digest, flight: F, now: Instant) {
        self.put(digest, Known::Asked(flight), now);
    }

    /// Takes note of the answer: of a good token, whose it is.
    pub(super) fn answered(&mut self, digest: &Digest, caller: Option<&Caller>, now: Instant) {
        self.0.remove(digest);
        if let Some(caller) = caller {
            self.put(*digest, Known::Caller(caller.clone()), now);
        }
    }

    /// A full cache takes nothing new: whoever asks is answered all the same.
    fn put(&mut self, digest: Digest, known: Known<F>, now: Instant) {
        if self.0.len() >= MAX_TOKENS {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() < MAX_TOKENS {
            self.0.insert(digest, (known, now + TTL));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::digest::digest_of;

    fn caller() -> Caller {
        Caller { account: "istio-system/ztunnel".parse().unwrap(), pod: None, node: None }
    }

    #[test]
    fn a_good_token_is_known_for_its_time_and_another_one_not_at_all() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let [good, bad] = ["good", "bad"].map(digest_of);
        for token in [good, bad] {
            assert_eq!(cache.get(&token, now), None);
            cache.asked(token, 1, now);
            assert_eq!(cache.get(&token, now), Some(Known::Asked(1)));
        }
        cache.answered(&good, Some(&caller()), now);
        cache.answered(&bad, None, now);
        assert_eq!(cache.get(&bad, now), None);
        let last = now + TTL.saturating_sub(Duration::from_millis(1));
        assert_eq!(cache.get(&good, last), Some(Known::Caller(caller())));
        assert_eq!(cache.get(&good, now + TTL), None);
    }

    #[test]
    fn a_full_cache_takes_nothing_new_until_something_has_run_out() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for n in 0..MAX_TOKENS {
            cache.asked(digest_of(&n.to_string()), n, now);
        }
        let further = digest_of("further");
        cache.asked(further, 0, now);
        assert_eq!(cache.get(&further, now), None);
        cache.asked(further, 0, now + TTL);
        assert_eq!(cache.get(&further, now + TTL), Some(Known::Asked(0)));
        assert_eq!(cache.0.len(), 1);
    }
}
