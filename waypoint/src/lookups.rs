//! Addresses of endpoints that the control plane knows by a host name only, as those of service entries
//! with resolution DNS: looked up while traffic may go there, before any does.

use std::{
    collections::{BTreeSet, HashMap},
    future::{Future, pending},
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::lookup_host,
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use crate::limits::MAX_LOOKUPS;

/// Pause after a lookup until the next one of the same name (Envoy's default): the resolver of the
/// system does not tell for how long an answer holds.
const REFRESH: Duration = Duration::from_secs(5);

/// A lookup that is under way.
type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// How a name is looked up.
type Resolve = fn(&str) -> Lookup;

/// Host names that are looked up again and again, for as long as they are wanted.
#[derive(Debug)]
pub struct Lookups {
    resolve: Resolve,
    names: HashMap<Arc<str>, Known>,
    running: JoinSet<Answer>,
    /// Places for those that wait for the resolver.
    places: Arc<Semaphore>,
}

/// What is known of a name.
#[derive(Debug)]
struct Known {
    /// Its next lookup.
    task: AbortHandle,
    addresses: Arc<[IpAddr]>,
    /// Whether the last lookup was in vain.
    fails: bool,
}

#[derive(Debug)]
struct Answer {
    name: Arc<str>,
    addresses: io::Result<Vec<IpAddr>>,
}

// === impl Lookups ===

impl Default for Lookups {
    fn default() -> Self {
        Self::with(system)
    }
}

impl Lookups {
    fn with(resolve: Resolve) -> Self {
        let places = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Self { resolve, names: HashMap::new(), running: JoinSet::new(), places }
    }

    /// Has these names looked up, new ones at once, and no others any more.
    pub fn want(&mut self, names: &BTreeSet<Arc<str>>) {
        self.names.retain(|name, known| {
            let is_wanted = names.contains(name);
            if !is_wanted {
                known.task.abort();
            }
            is_wanted
        });
        for name in names {
            if !self.names.contains_key(name) {
                let task = self.look_up(name.clone(), Duration::ZERO);
                let known = Known { task, addresses: Arc::default(), fails: false };
                self.names.insert(name.clone(), known);
            }
        }
    }

    /// Waits until a name has other addresses than before. One that cannot be looked up keeps those
    /// that it has: whoever provides the service may still be there.
    pub async fn changed(&mut self) -> (Arc<str>, Arc<[IpAddr]>) {
        loop {
            let Some(ended) = self.running.join_next().await else { return pending().await };
            // Otherwise it is not wanted any more.
            let Ok(Answer { name, addresses }) = ended else { continue };
            if !self.names.contains_key(&name) {
                continue;
            }
            let task = self.look_up(name.clone(), REFRESH);
            let Some(known) = self.names.get_mut(&name) else { continue };
            known.task = task;
            match addresses {
                Ok(addresses) => {
                    known.fails = false;
                    if *known.addresses != *addresses {
                        known.addresses = addresses.into();
                        return (name, known.addresses.clone());
                    }
                }
                // Once: it is tried again more often than anybody reads.
                Err(error) if !known.fails => {
                    known.fails = true;
                    tracing::warn!(%name, %error, "cannot look up endpoints; those known stay in use");
                }
                Err(_) => {}
            }
        }
    }

    fn look_up(&mut self, name: Arc<str>, pause: Duration) -> AbortHandle {
        let (resolve, places) = (self.resolve, self.places.clone());
        self.running.spawn(async move {
            sleep(pause).await;
            // Nobody closes it.
            let _place = places.acquire().await;
            let addresses = resolve(&name).await.map(|mut addresses| {
                // Their order says nothing, and is another one each time.
                addresses.sort_unstable();
                addresses.dedup();
                addresses
            });
            Answer { name, addresses }
        })
    }
}

/// Asks the resolver of the system, of which no names are completed: they are whole.
fn system(name: &str) -> Lookup {
    let whole = format!("{}.", name.trim_end_matches('.'));
    Box::pin(async move {
        let found = lookup_host((whole, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    use tokio::time::{Instant, timeout};

    use super::*;

    /// Answers as the name says: with the same addresses in turned order, with none, or with another one
    /// each time.
    fn turning(name: &str) -> Lookup {
        static TURN: AtomicU8 = AtomicU8::new(0);
        let turn = TURN.fetch_add(1, Relaxed);
        let name = name.to_owned();
        Box::pin(async move {
            match &*name {
                "same.example" if turn.is_multiple_of(2) => {
                    Ok(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()])
                }
                "same.example" => Ok(vec![[10, 0, 0, 2].into(), [10, 0, 0, 1].into()]),
                "fails.example" => Err(io::Error::other("no such name")),
                _ => Ok(vec![[10, 0, 0, turn].into()]),
            }
        })
    }

    fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_at_once_and_again_while_it_is_wanted() {
        let mut lookups = Lookups::with(turning);
        lookups.want(&names(&["turns.example"]));
        let begun = Instant::now();
        let (name, first) = lookups.changed().await;
        assert_eq!((&*name, begun.elapsed()), ("turns.example", Duration::ZERO));
        // What is wanted already is not asked for more often.
        lookups.want(&names(&["turns.example", "fails.example"]));
        let (_, second) = lookups.changed().await;
        assert_ne!(first, second);
        assert!(begun.elapsed() >= REFRESH);
        lookups.want(&names(&["fails.example"]));
        assert!(timeout(REFRESH * 10, lookups.changed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_addresses_in_another_order_are_no_change() {
        let mut lookups = Lookups::with(turning);
        lookups.want(&names(&["same.example"]));
        let (_, addresses) = lookups.changed().await;
        assert_eq!(addresses.len(), 2);
        assert!(timeout(REFRESH * 10, lookups.changed()).await.is_err());
    }
}
