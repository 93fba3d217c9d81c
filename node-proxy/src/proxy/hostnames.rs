//! The addresses of workloads that have a host name in their place, as the pod sees them that connects:
//! its own socket asks, and what it was told is kept for it alone.

mod merged;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh_api::workload::IpFamilies;
use rand::seq::IndexedRandom as _;
use tokio::{sync::Semaphore, time::timeout};

use self::merged::Merged;
use super::{node::Node, pod::Pod, resolver::upstream::Upstreams};
use crate::{
    dns::{Addresses, Cache, addresses, longest_answer, lookup},
    limits::dns::MAX_LOOKUPS,
    telemetry::reason::CloseReason,
};

/// Time that one name server has for an answer: a connection waits for it, and there may be another.
const SERVER_TIME: Duration = Duration::from_secs(2);

/// Time that all of them have, for both families.
const LOOKUP_TIME: Duration = Duration::from_secs(5);

/// What one pod was told, and what it is asking.
#[derive(Debug)]
pub(super) struct Told {
    cache: Mutex<Cache>,
    /// Connections that want the same at once ask once.
    asking: Merged<(Arc<str>, Addresses), Arc<[IpAddr]>>,
    /// Places for those that wait for name servers.
    places: Semaphore,
}

// === impl Told ===

impl Default for Told {
    fn default() -> Self {
        let (cache, asking) = (Mutex::default(), Merged::default());
        Self { cache, asking, places: Semaphore::new(MAX_LOOKUPS) }
    }
}

impl Told {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Every change of the cache leaves it whole.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns an address of `hostname` for a connection of `pod`: of the family of `like` if there is
/// one, and of those that `families` allows.
pub(super) async fn resolve(
    node: &Node,
    pod: &Arc<Pod>,
    hostname: &Arc<str>,
    like: IpAddr,
    families: IpFamilies,
) -> Result<IpAddr, CloseReason> {
    let resolving = async {
        for family in families_of(&pod.addresses, like, families) {
            let asked = look_up(node, pod, hostname, family);
            let found = pod.told.asking.share((hostname.clone(), family), asked).await;
            // Any of them, as those who offer several mean it.
            if let Some(address) = found.choose(&mut rand::rng()) {
                return Ok(*address);
            }
        }
        Err(CloseReason::NameNotResolved)
    };
    timeout(LOOKUP_TIME, resolving).await.unwrap_or(Err(CloseReason::NameNotResolved))
}

/// Returns the families to ask for, the likeliest first: those of the pod.
fn families_of(pod: &[IpAddr], like: IpAddr, allowed: IpFamilies) -> Vec<Addresses> {
    let has = |v4: bool| pod.iter().any(|address| address.is_ipv4() == v4);
    let (v4, v6) = match allowed {
        IpFamilies::Automatic | IpFamilies::Dual => (has(true), has(false)),
        IpFamilies::V4Only => (has(true), false),
        IpFamilies::V6Only => (false, has(false)),
    };
    let mut families = Vec::new();
    families.extend(v4.then_some(Addresses::V4));
    families.extend(v6.then_some(Addresses::V6));
    if like.is_ipv6() {
        families.reverse();
    }
    families
}

/// Returns what is known of a name, or else asks the name servers.
async fn look_up(node: &Node, pod: &Arc<Pod>, hostname: &str, family: Addresses) -> Arc<[IpAddr]> {
    let Some(query) = lookup(hostname, family) else { return Arc::default() };
    for server in &node.options.name_servers {
        let kept = pod.told.cache().get(*server, &query, Instant::now());
        if let Some(answer) = kept {
            return addresses(&answer).into();
        }
    }
    let places = &pod.told.places;
    if places.available_permits() == 0 {
        node.metrics.limit("dns_lookups").inc();
    }
    // Nobody closes it.
    let _place = places.acquire().await;
    ask(node, pod, hostname, &query).await.into()
}

/// Asks the name servers in turn until one answers, be it that there is nothing.
async fn ask(node: &Node, pod: &Arc<Pod>, hostname: &str, query: &[u8]) -> Vec<IpAddr> {
    let upstreams = Upstreams::new(pod.clone());
    for server in &node.options.name_servers {
        let asked = timeout(SERVER_TIME, upstreams.ask(query.to_vec(), *server, longest_answer()));
        match asked.await {
            Ok(Ok(answer)) => {
                if pod.told.cache().put(*server, query, &answer, Instant::now()).is_err() {
                    node.metrics.limit("dns_cache").inc();
                }
                return addresses(&answer);
            }
            Ok(Err(error)) => {
                tracing::debug!(target: "dns", pod = %pod.name, hostname, %server, %error, "not answered");
            }
            Err(_) => {
                tracing::debug!(target: "dns", pod = %pod.name, hostname, %server, "no answer in time");
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_of_the_connection_comes_first_of_those_that_pod_and_service_have() {
        use Addresses::{V4, V6};
        use IpFamilies::{Automatic, Dual, V4Only, V6Only};

        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        for (pod, like, allowed, expected) in [
            (&[v4, v6][..], v4, Automatic, &[V4, V6][..]),
            (&[v4, v6], v6, Dual, &[V6, V4]),
            (&[v4, v6], v6, V4Only, &[V4]),
            (&[v4], v4, V6Only, &[]),
            (&[v4], v6, Automatic, &[V4]),
            (&[v6], v4, Dual, &[V6]),
        ] {
            assert_eq!(families_of(pod, like, allowed), expected, "{pod:?} {like} {allowed:?}");
        }
    }
}
