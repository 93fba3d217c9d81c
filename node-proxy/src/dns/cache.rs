//! Answers of name servers, which are given again while they are fresh (RFC 1035, section 7.4;
//! RFC 2308 for those that say that there is nothing).

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    lifetime::{Lifetime, lifetime},
    raw::Id,
};

/// Answers that are kept for one pod. With [`MAX_ANSWER`] and [`MAX_QUERY`] that is 400 KiB at
/// most; `limit_reached{limit="dns_cache"}` counts those that found no place.
const MAX_ANSWERS: usize = 256;

/// Longest answer that is kept, in bytes: what fits a packet of every network.
const MAX_ANSWER: usize = 1_232;

/// Longest query whose answer is kept, in bytes: a name of full length and what clients add to it.
const MAX_QUERY: usize = 320;

/// Longest time for which an answer is kept, whatever it says: as long as clients keep what the
/// mesh itself answers, so that a name that changes is not wrong for longer in here than there.
const MAX_TIME: Duration = Duration::from_secs(30);

/// The answers to one pod's queries.
#[derive(Debug, Default)]
pub struct Cache {
    answers: HashMap<Key, Kept>,
}

/// The cache is full of answers that are fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Who was asked what: the query to the byte, but for its number. What differs in a flag or an
/// option may be answered differently.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    server: IpAddr,
    question: Box<[u8]>,
}

#[derive(Debug)]
struct Kept {
    answer: Box<[u8]>,
    lifetime: Lifetime,
    since: Instant,
}

// === impl Cache ===

impl Cache {
    /// Returns the answer of `server` to `query`, if it is kept and fresh: as the server would give
    /// it at this time.
    pub fn get(&self, server: IpAddr, query: &[u8], now: Instant) -> Option<Vec<u8>> {
        let kept = self.answers.get(&Key::new(server, query)?)?;
        let age = now.saturating_duration_since(kept.since);
        if age >= kept.time() {
            return None;
        }
        let mut answer = kept.answer.to_vec();
        kept.lifetime.shorten(&mut answer, age);
        Id::of(query)?.put(&mut answer);
        Some(answer)
    }

    /// Keeps the answer of `server` to `query`, if it says for how long that may be.
    pub fn put(
        &mut self,
        server: IpAddr,
        query: &[u8],
        answer: &[u8],
        now: Instant,
    ) -> Result<(), Full> {
        if answer.len() > MAX_ANSWER {
            return Ok(());
        }
        let (Some(key), Some(lifetime)) = (Key::new(server, query), lifetime(answer)) else {
            return Ok(());
        };
        if self.answers.len() >= MAX_ANSWERS && !self.answers.contains_key(&key) {
            self.tidy(now);
            if self.answers.len() >= MAX_ANSWERS {
                return Err(Full);
            }
        }
        self.answers.insert(key, Kept { answer: answer.into(), lifetime, since: now });
        Ok(())
    }

    /// Lets go of what is no longer fresh.
    pub fn tidy(&mut self, now: Instant) {
        self.answers.retain(|_, kept| now.saturating_duration_since(kept.since) < kept.time());
    }
}

// === impl Key ===

impl Key {
    fn new(server: IpAddr, query: &[u8]) -> Option<Self> {
        let question = query.get(size_of::<Id>()..).filter(|_| query.len() <= MAX_QUERY)?.into();
        Some(Self { server, question })
    }
}

// === impl Kept ===

impl Kept {
    fn time(&self) -> Duration {
        self.lifetime.time().min(MAX_TIME)
    }
}

#[cfg(test)]
mod tests;
