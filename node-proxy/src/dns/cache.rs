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
use crate::limits::dns::{
    MAX_CACHE_TIME, MAX_CACHED_ANSWER_BYTES, MAX_CACHED_ANSWERS, MAX_CACHED_QUERY_BYTES,
};

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
        if answer.len() > MAX_CACHED_ANSWER_BYTES {
            return Ok(());
        }
        let (Some(key), Some(lifetime)) = (Key::new(server, query), lifetime(answer)) else {
            return Ok(());
        };
        if self.answers.len() >= MAX_CACHED_ANSWERS && !self.answers.contains_key(&key) {
            self.tidy(now);
            if self.answers.len() >= MAX_CACHED_ANSWERS {
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
        let question =
            query.get(size_of::<Id>()..).filter(|_| query.len() <= MAX_CACHED_QUERY_BYTES)?.into();
        Some(Self { server, question })
    }
}

// === impl Kept ===

impl Kept {
    fn time(&self) -> Duration {
        self.lifetime.time().min(MAX_CACHE_TIME)
    }
}

#[cfg(test)]
mod tests;
