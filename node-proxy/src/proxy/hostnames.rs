//! The addresses of workloads that have a host name in their place, as the pod sees them that connects:
//! its own socket asks, and what it was told is kept for it alone.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh_api::workload::IpFamilies;
use rand::seq::IndexedRandom as _;
use tokio::time::timeout;

use super::{node::Node, pod::Pod, resolver::upstream::Upstreams};
use crate::{
    dns::{Addresses, Cache, addresses, longest_answer, lookup},
    telemetry::reason::CloseReason,
};

/// Time that one name server has for an answer: a connection waits for it, and there may be another.
const SERVER_TIME: Duration = Duration::from_secs(2);

/// Time that all of them have, for both families.
const LOOKUP_TIME: Duration = Duration::from_secs(5);

/// What one pod was told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Cache>);

// === impl Told ===

impl Told {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Every change of the cache leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns an address of `hostname` for a connection of `pod`: of the family of `like` if there is
/// one, and of those that `families` allows.
pub(super) async fn resolve(
    node: &Node,
    pod: &Arc<Pod>,
    hostname: &str,
    like: IpAddr,
    families: IpFamilies,
) -> Result<IpAddr, CloseReason> {
    let resolving = async {
        for family in families_of(&pod.addresses, like, families) {
            let found = look_up(node, pod, hostname, family).await;
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

/// Asks the name servers in turn until one answers, be it that there is nothing.
async fn look_up(node: &Node, pod: &Arc<Pod>, hostname: &str, family: Addresses) -> Vec<IpAddr> {
    let Some(query) = lookup(hostname, family) else { return Vec::new() };
    let upstreams = Upstreams::new(pod.clone());
    for server in &node.options.name_servers {
        let kept = pod.told.cache().get(*server, &query, Instant::now());
        if let Some(answer) = kept {
            return addresses(&answer);
        }
        let asked = timeout(SERVER_TIME, upstreams.ask(query.clone(), *server, longest_answer()));
        match asked.await {
            Ok(Ok(answer)) => {
                if pod.told.cache().put(*server, &query, &answer, Instant::now()).is_err() {
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
