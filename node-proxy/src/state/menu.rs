//! What the clients of a place may choose from: prepared when the first of them asks, so that a
//! connection chooses in a time that does not depend on the number of endpoints.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use mesh_api::{
    identity::Identity,
    workload::{Health, IpFamilies, Network, Service, Workload},
};

use super::{
    endpoints::{Endpoint, Place},
    lots::Lots,
    proximity::Preference,
    standing::{Moment, Standing},
};

/// Endpoints that are tried before a connection is given up.
pub(super) const MAX_ATTEMPTS: usize = 3;

/// Draws for one connection that may hit an endpoint which is set aside or has been drawn: while few
/// are, chance keeps the shares.
const MAX_DRAWS: usize = 8;

/// Endpoints of a tier that are looked at one after the other for those that chance has missed. Where
/// more than these are set aside, the next tier may be tried before the rest.
const MAX_LOOKS: usize = 16;

/// What stands for an address that is not known yet.
const V4_NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6_NOWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// What an endpoint is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To take connections to its service.
    Serve,
    /// To take, as a waypoint, connections to what is bound to it.
    StandIn,
    /// To take, as the gateway of a network, connections into that: it is reached by its address
    /// whatever its own network is.
    LeadOut,
}

/// What the clients of a place may choose from for one port of a service.
#[derive(Debug)]
pub(super) struct Menu {
    /// The service as it was.
    service: Arc<Service>,
    /// Best first.
    tiers: Vec<Tier>,
    /// What cannot be chosen, and why.
    pub(super) left_out: LeftOut,
}

/// Endpoints that are as good as each other; never empty.
#[derive(Debug)]
pub(super) struct Tier {
    /// How much they have in common with the client.
    pub(super) rank: usize,
    pub(super) choices: Vec<Choice>,
    lots: Lots,
}

/// An endpoint that may be chosen.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) workload: Arc<Workload>,
    pub(super) standing: Arc<Standing>,
    /// Identities of which it must present one.
    pub(super) expected: Arc<[Identity]>,
    pub(super) access: Access,
}

/// Where an endpoint takes a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// At its address.
    At(SocketAddr),
    /// At a port of an address that this name stands for.
    Named(Arc<str>, u16),
    /// Behind the gateway of its network.
    Across,
}

/// How an endpoint is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// At this port of its address.
    Port(u16),
    /// At this port of an address that its name stands for.
    Name(u16),
    /// Through the gateway of its network.
    Gateway,
}

/// Numbers of endpoints that cannot be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Not ready.
    pub(super) unhealthy: usize,
    /// Of capacity 0.
    pub(super) without_share: usize,
    /// Without the port.
    pub(super) without_port: usize,
    /// Without an address of a family that the service allows.
    pub(super) without_address: usize,
    /// On another network that no gateway leads to.
    pub(super) without_gateway: usize,
    /// On another network, where nobody could prove to be one.
    pub(super) without_identity: usize,
    /// Where the service wants none of its clients to go.
    pub(super) elsewhere: usize,
}

/// Collects the identities that peers may present, one list for those that may present the same.
#[derive(Default)]
struct Expected(HashMap<Identity, Arc<[Identity]>>);

// === impl Menu ===

impl Menu {
    /// Prepares the endpoints of `places` for connections of `client` to `port` of `service`.
    pub(super) fn new(
        service: &Arc<Service>,
        places: &[Place],
        client: &Workload,
        network: &Network,
        port: u16,
        purpose: Purpose,
    ) -> Self {
        let preference = Preference::new(&service.balancing);
        let mut expected = Expected::default();
        let mut left_out = LeftOut::default();
        let mut tiers: HashMap<usize, Vec<Choice>> = HashMap::new();
        for place in places {
            let rank = place.rank(preference, client);
            let Some(rank) = rank.filter(|rank| preference.ranks().contains(rank)) else {
                left_out.elsewhere += place.endpoints().len();
                continue;
            };
            let choices = tiers.entry(rank).or_default();
            for endpoint in place.endpoints() {
                let remote = purpose != Purpose::LeadOut && endpoint.workload.network != *network;
                let access = target_port(endpoint, service, port, purpose).and_then(|port| {
                    if remote {
                        access_across(&endpoint.workload, service, purpose)
                    } else {
                        access_at(port, &endpoint.workload, service)
                    }
                });
                match access {
                    Ok(access) => choices.push(Choice {
                        workload: endpoint.workload.clone(),
                        standing: endpoint.standing.clone(),
                        expected: expected.of(&endpoint.workload, service),
                        access,
                    }),
                    Err(cause) => *cause(&mut left_out) += 1,
                }
            }
        }
        let mut tiers: Vec<_> =
            tiers.into_iter().filter_map(|(rank, choices)| Tier::new(rank, choices)).collect();
        tiers.sort_unstable_by_key(|tier| std::cmp::Reverse(tier.rank));
        Self { service: service.clone(), tiers, left_out }
    }

    /// Returns whether this is what `service` offers.
    pub(super) fn is_of(&self, service: &Arc<Service>) -> bool {
        Arc::ptr_eq(&self.service, service)
    }

    /// Returns the tiers, best first.
    pub(super) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// Chooses up to [`MAX_ATTEMPTS`] endpoints, in the order to try them: of the better tiers
    /// before others, of equals a random one by capacity first, as `pick` says, and after all others
    /// what is set aside. Those that are not reachable are left out.
    pub(super) fn choose(
        &self,
        now: Moment,
        pick: impl Fn(u64) -> u64,
        is_reachable: impl Fn(&Choice) -> bool,
    ) -> Vec<&Choice> {
        let (mut chosen, mut aside) = (Vec::with_capacity(MAX_ATTEMPTS), Vec::new());
        for tier in &self.tiers {
            tier.choose(now, &pick, &is_reachable, &mut chosen, &mut aside);
        }
        let room = MAX_ATTEMPTS.saturating_sub(chosen.len());
        chosen.extend(aside.into_iter().take(room));
        chosen
    }

    /// Returns where `choice` takes a connection to `target`.
    pub(super) fn way(&self, choice: &Choice, target: IpAddr) -> Option<Way> {
        let Choice { workload, access, .. } = choice;
        match access {
            Access::Port(port) => {
                let address =
                    choose_address(&workload.addresses, self.service.ip_families, target)?;
                Some(Way::At(SocketAddr::new(address, *port)))
            }
            Access::Name(port) => Some(Way::Named(workload.hostname.clone()?, *port)),
            Access::Gateway => Some(Way::Across),
        }
    }
}

// === impl Way ===

impl Way {
    /// Returns the address that it leads to and, if that is not known yet, the name to look up; none
    /// if another network has it. A name is looked up in the family of `like` first.
    pub(super) fn place(self, like: SocketAddr) -> Option<(SocketAddr, Option<Arc<str>>)> {
        match self {
            Self::At(address) => Some((address, None)),
            Self::Named(hostname, port) => {
                let nowhere = if like.is_ipv4() { V4_NOWHERE } else { V6_NOWHERE };
                Some((SocketAddr::new(nowhere, port), Some(hostname)))
            }
            Self::Across => None,
        }
    }
}

// === impl Tier ===

impl Tier {
    fn new(rank: usize, choices: Vec<Choice>) -> Option<Self> {
        let weights: Vec<_> = choices.iter().map(|choice| choice.workload.capacity).collect();
        (!choices.is_empty()).then(|| Self { rank, choices, lots: Lots::new(&weights) })
    }

    /// Adds to `chosen`, until that is full, and to `aside`.
    fn choose<'a>(
        &'a self,
        now: Moment,
        pick: impl Fn(u64) -> u64,
        is_reachable: impl Fn(&Choice) -> bool,
        chosen: &mut Vec<&'a Choice>,
        aside: &mut Vec<&'a Choice>,
    ) {
        let all = chosen.len() + aside.len() + self.choices.len();
        let mut index = 0;
        for turn in 0..MAX_DRAWS + MAX_LOOKS {
            if chosen.len() == MAX_ATTEMPTS || chosen.len() + aside.len() == all {
                return;
            }
            let by_chance = turn < MAX_DRAWS;
            index =
                if by_chance { self.lots.draw(&pick) } else { (index + 1) % self.choices.len() };
            let choice = &self.choices[index];
            let is_same = |other: &&Choice| std::ptr::eq(*other, choice);
            if chosen.iter().any(is_same) || aside.iter().any(is_same) || !is_reachable(choice) {
                continue;
            }
            if choice.standing.is_set_aside(now) { aside.push(choice) } else { chosen.push(choice) }
        }
    }
}

// === impl Expected ===

impl Expected {
    fn of(&mut self, workload: &Workload, service: &Service) -> Arc<[Identity]> {
        let own = &workload.identity;
        let make = || std::iter::once(own).chain(&service.subject_alt_names).cloned().collect();
        self.0.entry(own.clone()).or_insert_with(make).clone()
    }
}

/// What is in the way of an endpoint.
type Obstacle = fn(&mut LeftOut) -> &mut usize;

/// Returns the port at which `endpoint` takes connections to `port` of `service`.
fn target_port(
    endpoint: &Endpoint,
    service: &Service,
    port: u16,
    purpose: Purpose,
) -> Result<u16, Obstacle> {
    let workload = &endpoint.workload;
    if workload.health == Health::Unhealthy && !service.allow_unhealthy {
        return Err(|left_out| &mut left_out.unhealthy);
    }
    if workload.capacity == 0 {
        return Err(|left_out| &mut left_out.without_share);
    }
    let declared = service.ports.iter().find(|declared| declared.service_port == port);
    // A proxy that takes everything at one port takes it whatever its service declares.
    let tunnel = workload.application_tunnel.filter(|_| purpose == Purpose::StandIn);
    let mapped = endpoint.ports.get(&port).copied();
    let target = match declared {
        Some(declared) => mapped.or(declared.target_port),
        None if tunnel.is_some() => mapped,
        None => None,
    };
    let target = target.or_else(|| tunnel.and_then(|tunnel| tunnel.port).map(|_| port));
    target.ok_or(|left_out| &mut left_out.without_port)
}

/// Returns how an endpoint of this network is reached that takes connections at `port`.
fn access_at(port: u16, workload: &Workload, service: &Service) -> Result<Access, Obstacle> {
    if workload.hostname.is_some() && workload.addresses.is_empty() {
        return Ok(Access::Name(port));
    }
    // Its own address may be that of the service, too.
    let usable = |address: &IpAddr| {
        allows(service.ip_families, *address)
            || service.addresses.iter().any(|vip| vip.address.contains(address))
    };
    if workload.addresses.iter().any(usable) {
        Ok(Access::Port(port))
    } else {
        Err(|left_out| &mut left_out.without_address)
    }
}

/// Returns how an endpoint of another network is reached. Who answers for it there is chosen there,
/// and proves to be of the service that the connection is for.
fn access_across(
    workload: &Workload,
    service: &Service,
    purpose: Purpose,
) -> Result<Access, Obstacle> {
    if workload.network_gateway.is_none() {
        return Err(|left_out| &mut left_out.without_gateway);
    }
    if purpose == Purpose::Serve && service.subject_alt_names.is_empty() {
        return Err(|left_out| &mut left_out.without_identity);
    }
    Ok(Access::Gateway)
}

/// Prefers the target's own address, then its family, then any that the service allows.
pub(super) fn choose_address(
    addresses: &[IpAddr],
    families: IpFamilies,
    target: IpAddr,
) -> Option<IpAddr> {
    if addresses.contains(&target) {
        return Some(target);
    }
    let same_family = |address: &&IpAddr| address.is_ipv4() == target.is_ipv4();
    let mut usable = addresses.iter().filter(|address| allows(families, **address));
    usable.clone().find(same_family).or_else(|| usable.next()).copied()
}

fn allows(families: IpFamilies, address: IpAddr) -> bool {
    match families {
        IpFamilies::Automatic | IpFamilies::Dual => true,
        IpFamilies::V4Only => address.is_ipv4(),
        IpFamilies::V6Only => address.is_ipv6(),
    }
}
