//! One port and subset of a service.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use mesh_api::workload::Balancing;

use super::{
    dice::Dice,
    endpoint::{Endpoint, EndpointId, Host, Instance, Picked, Tried},
    group::{Group, Search},
    limits::{Overflow, Permit},
    locality::{Share, arrange},
    outlier::Standing,
    policy::{Algorithm, Policy, Warmup},
    shared::{Shared, Statistics},
    tiers::{self, Census, TierChoice},
};

/// Draws of an endpoint that was not tried before, until one is tried again.
const MAX_RESELECTIONS: usize = 5;

/// Tries after which a retry looks again at which localities were in vain.
const TRIES_PER_LOCALITY: usize = 2;

/// One port and subset of a service, as it is at one time.
#[derive(Debug)]
pub struct Cluster {
    policy: Arc<Policy>,
    algorithm: Algorithm,
    /// Best first.
    tiers: Box<[Box<[Group]>]>,
    /// All endpoints of the tiers.
    hosts: HashMap<EndpointId, Arc<Host>>,
    /// The same by address, where clients address them.
    addressed: HashMap<SocketAddr, (usize, Arc<Host>)>,
    shared: Arc<Shared>,
}

/// What matters of a request for where it goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The [`hash`](super::hash) of what [`Policy::hash_key`] says; absent if the request has none.
    pub hash: Option<u64>,
    /// The address that the client addressed.
    pub target: Option<SocketAddr>,
    /// Endpoints that the request was sent to in vain. They are tried again only where a hash decides
    /// or there is hardly another.
    pub tried: &'a [Tried],
    /// Whether localities that were tried come last.
    pub other_localities: bool,
}

/// Why there is no endpoint for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// None is ready, or none that the request may go to.
    #[error("no endpoint is ready")]
    Ready,
    /// All were ejected.
    #[error("all endpoints are ejected")]
    Usable,
}

// === impl Cluster ===

impl Cluster {
    /// Makes a cluster of those endpoints that the policy selects, as `waypoint` sees them;
    /// `balancing` is what the service says where the policy says nothing. It takes over from
    /// `previous`, which counts no more.
    pub fn new(
        policy: Arc<Policy>,
        balancing: &Balancing,
        waypoint: &Instance,
        endpoints: impl IntoIterator<Item = Endpoint>,
        previous: Option<&Self>,
        now: Instant,
    ) -> Self {
        let algorithm = policy.algorithm.clone().unwrap_or_else(|| match balancing {
            Balancing::Passthrough => Algorithm::Passthrough,
            Balancing::Even | Balancing::Strict(_) | Balancing::Failover(_) => Algorithm::default(),
        });
        let known = previous.map(|previous| previous.shared.clone());
        let counted = known.unwrap_or_else(|| Arc::new(Shared::new(now)));
        let is_meant = |endpoint: &Endpoint| {
            endpoint.ready && endpoint.weight() > 0 && policy.selects(&endpoint.instance.labels)
        };
        let endpoints = endpoints.into_iter().filter(is_meant).collect();
        let arrangement = arrange(&policy, balancing, waypoint, endpoints);
        let mut successor =
            Successor { policy: &policy, shared: &counted, previous, hosts: HashMap::new(), now };
        let tiers = arrangement.into_iter().enumerate().map(|(tier, shares)| {
            let shares = shares.into_iter().enumerate();
            shares
                .map(|(number, share)| successor.group(share, &algorithm, (tier, number)))
                .collect()
        });
        let tiers: Box<[Box<[_]>]> = tiers.collect();
        let hosts = successor.finish();
        let addressed = match algorithm {
            Algorithm::Passthrough => by_address(&tiers),
            Algorithm::LeastRequest
            | Algorithm::RoundRobin
            | Algorithm::Random
            | Algorithm::Hash(_) => HashMap::new(),
        };
        Self { policy, algorithm, tiers, hosts, addressed, shared: counted }
    }

    /// Returns how the cluster is used.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the number of endpoints that are ready, ejected ones included.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Returns whether no endpoint is ready.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Picks the endpoint of a request. `random` is any number.
    pub fn choose(
        &self,
        context: &Context<'_>,
        random: u64,
        now: Instant,
    ) -> Result<Picked, NoEndpoint> {
        if self.is_empty() {
            return Err(NoEndpoint::Ready);
        }
        if let Some(picked) = self.addressed(context) {
            return Ok(picked);
        }
        let is_hashed = matches!(self.algorithm, Algorithm::Hash(_));
        let hash = if is_hashed { context.hash.unwrap_or(random) } else { random };
        let mut search = Search { tried: &[], panic: false, hash, warmup: self.warmup(), now };
        // What has the same hash goes the same way everywhere.
        let mut dice = Dice::new(hash);
        let avoided = self.avoided(context);
        if !is_hashed && !context.tried.is_empty() {
            search.tried = context.tried;
            let others = self.pick(&mut search, &mut dice, avoided, MAX_RESELECTIONS);
            if let Some(picked) = others {
                return Ok(picked);
            }
            search.tried = &[];
        }
        // In vain only if what is ejected was not noticed before: once for each group.
        let rounds = self.tiers.iter().map(|groups| groups.len()).sum::<usize>() + 1;
        self.pick(&mut search, &mut dice, avoided, rounds).ok_or(NoEndpoint::Usable)
    }

    /// Takes a place for a connection, while the permit lives.
    pub fn connection(&self) -> Result<Permit, Overflow> {
        Permit::take(&self.shared, &self.policy, Overflow::Connections)
    }

    /// Takes a place for a request that waits for a connection, while the permit lives.
    pub fn pending(&self) -> Result<Permit, Overflow> {
        Permit::take(&self.shared, &self.policy, Overflow::Pending)
    }

    /// Takes a place for a request that has a connection, while the permit lives.
    pub fn request(&self) -> Result<Permit, Overflow> {
        Permit::take(&self.shared, &self.policy, Overflow::Requests)
    }

    /// Takes a place for a retry, from before its pause and while the permit lives.
    pub fn retry(&self) -> Result<Permit, Overflow> {
        Permit::take(&self.shared, &self.policy, Overflow::Retries)
    }

    /// Has ejected endpoints used again whose time is over: to be called in each
    /// [`OutlierDetection::interval`](super::OutlierDetection::interval), by anybody.
    pub fn tick(&self, now: Instant) {
        if let Some(policy) = &self.policy.outlier {
            for group in self.tiers.iter().flatten() {
                group.tick(policy, now);
            }
        }
    }

    /// Returns what is counted.
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }

    /// Picks the endpoint that the client addressed, if it is to get that.
    fn addressed(&self, context: &Context<'_>) -> Option<Picked> {
        let (tier, host) = self.addressed.get(&context.target?)?;
        Some(Picked::new(host.clone(), *tier))
    }

    fn warmup(&self) -> Option<&Warmup> {
        match self.algorithm {
            Algorithm::LeastRequest | Algorithm::RoundRobin => self.policy.warmup.as_ref(),
            Algorithm::Random | Algorithm::Passthrough | Algorithm::Hash(_) => None,
        }
    }

    /// Returns those whose tiers come last.
    fn avoided<'a>(&self, context: &Context<'a>) -> &'a [Tried] {
        let tried = context.tried;
        let counted = tried.len() - tried.len() % TRIES_PER_LOCALITY;
        let avoided = if context.other_localities { &tried[..counted] } else { &[] };
        let usable = |tier: usize| self.census(tier).usable > 0 && !is_avoided(avoided, tier);
        if (0..self.tiers.len()).any(usable) { avoided } else { &[] }
    }

    /// Looks for an endpoint, tier by tier as chance has it, up to so many times.
    fn pick(
        &self,
        search: &mut Search<'_>,
        dice: &mut Dice,
        avoided: &[Tried],
        rounds: usize,
    ) -> Option<Picked> {
        for _ in 0..rounds {
            let TierChoice { tier, panic } = self.tier(dice, avoided)?;
            search.panic = panic;
            let found = self.group(tier, panic, dice).and_then(|group| group.pick(search, dice));
            if let Some(host) = found {
                return Some(Picked::new(host.clone(), tier));
            }
        }
        None
    }

    fn tier(&self, dice: &mut Dice, avoided: &[Tried]) -> Option<TierChoice> {
        let threshold =
            self.policy.outlier.as_ref().map_or(0, |outlier| outlier.min_health_percent);
        let census = |tier| {
            if is_avoided(avoided, tier) { Census::default() } else { self.census(tier) }
        };
        tiers::choose(self.tiers.len(), census, threshold, |all| dice.below(all))
    }

    fn census(&self, tier: usize) -> Census {
        self.tiers[tier].iter().map(Group::census).fold(Census::default(), |sum, census| Census {
            usable: sum.usable + census.usable,
            total: sum.total + census.total,
        })
    }

    /// Draws a group of a tier by its share, of which it loses what its usable endpoints cannot take.
    fn group(&self, tier: usize, panic: bool, dice: &mut Dice) -> Option<&Group> {
        let groups = &self.tiers[tier];
        if let [only] = &**groups {
            return Some(only);
        }
        let share = |index: usize| {
            let group: &Group = &groups[index];
            u64::from(group.weight) * if panic { 1 } else { group.census().capacity() }
        };
        let all = (0..groups.len()).map(share).sum();
        let index = tiers::by_share(groups.len(), share, all, |all| dice.below(all))?;
        groups.get(index)
    }
}

/// What makes a cluster out of another one.
struct Successor<'a> {
    policy: &'a Arc<Policy>,
    shared: &'a Arc<Shared>,
    previous: Option<&'a Cluster>,
    hosts: HashMap<EndpointId, Arc<Host>>,
    now: Instant,
}

// === impl Successor ===

impl Successor<'_> {
    /// Makes a group that is at this place of the arrangement.
    fn group(&mut self, share: Share, algorithm: &Algorithm, place: (usize, usize)) -> Group {
        let hosts = share.endpoints.into_iter().map(|endpoint| self.host(endpoint)).collect();
        let previous = self.previous.and_then(|previous| previous.tiers.get(place.0)?.get(place.1));
        Group::new(share.weight, hosts, algorithm, previous.map_or(0, Group::turn))
    }

    fn host(&mut self, endpoint: Endpoint) -> Arc<Host> {
        let id = endpoint.id();
        let known = self.previous.and_then(|previous| previous.hosts.get(&id));
        let same = known
            .filter(|host| host.endpoint == endpoint && Arc::ptr_eq(&host.policy, self.policy));
        let host = same.cloned().unwrap_or_else(|| {
            let new = || Arc::new(Standing::new(self.shared.clone(), self.now));
            let standing = known.map_or_else(new, |host| host.standing.clone());
            if self.policy.outlier.is_none() {
                standing.pardon();
            }
            Arc::new(Host { endpoint, standing, policy: self.policy.clone() })
        });
        self.hosts.insert(id, host.clone());
        host
    }

    /// Returns the endpoints there are, and lets go of those there are no longer.
    fn finish(self) -> HashMap<EndpointId, Arc<Host>> {
        let before = self.previous.into_iter().flat_map(|previous| &previous.hosts);
        for (_, gone) in before.filter(|(id, _)| !self.hosts.contains_key(id)) {
            gone.standing.retire();
        }
        let count = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        self.shared.endpoints.store(count, Relaxed);
        self.hosts
    }
}

fn is_avoided(avoided: &[Tried], tier: usize) -> bool {
    avoided.iter().any(|tried| tried.tier == tier)
}

fn by_address(tiers: &[Box<[Group]>]) -> HashMap<SocketAddr, (usize, Arc<Host>)> {
    let hosts = tiers.iter().enumerate().flat_map(|(tier, groups)| {
        let hosts = groups.iter().flat_map(Group::hosts);
        hosts.map(move |host| (host.endpoint.address, (tier, host.clone())))
    });
    hosts.collect()
}
