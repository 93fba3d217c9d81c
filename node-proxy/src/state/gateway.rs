//! Proxies that take connections for others: what a reference to one leads to, and the ways to other
//! networks, which pass one.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_api::{
    identity::{Identity, Namespace},
    workload::{GatewayAddress, GatewayDestination, IpFamilies, Network, Service, Workload},
};

use super::{
    endpoints::Candidate,
    menu::{MAX_ATTEMPTS, Purpose, Way, choose_address},
    outbound::{Hop, Inquiry, Transport},
    snapshot::{MeshState, ServiceEntry},
    standing::Standing,
};

/// What a reference to a gateway leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Instances<'a> {
    /// The endpoints of a service.
    Of(ServiceEntry<'a>),
    /// One workload.
    One(&'a Arc<Workload>),
}

/// One of them, as a connection finds it.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) workload: Arc<Workload>,
    /// Where it takes tunnels.
    pub(super) way: Way,
    /// Identities of which it must present one.
    pub(super) expected: Arc<[Identity]>,
    pub(super) standing: Option<Arc<Standing>>,
}

// === impl MeshState ===

impl MeshState {
    /// Returns what the reference leads to.
    pub(super) fn instances(
        &self,
        gateway: &GatewayAddress,
        client: &Namespace,
    ) -> Option<Instances<'_>> {
        match &gateway.destination {
            GatewayDestination::Hostname(key) => {
                let service = self.service(key).map(Instances::Of);
                service.or_else(|| self.workload_named(key).map(Instances::One))
            }
            GatewayDestination::Address(network, address) if network == self.network() => {
                let service = self.service_at(*address, client).map(Instances::Of);
                service.or_else(|| self.workload_at(*address).map(Instances::One))
            }
            GatewayDestination::Address(network, address) => {
                self.remote_workload_at(network, *address).map(Instances::One)
            }
        }
    }

    /// Returns the instances of a gateway that a connection tries, best first.
    pub(super) fn instances_for(
        &self,
        gateway: &GatewayAddress,
        purpose: Purpose,
        inquiry: Inquiry<'_>,
    ) -> Vec<Instance> {
        let Inquiry { source, target, now, pick } = inquiry;
        // The family of the client where there is a choice.
        let ip = match &gateway.destination {
            GatewayDestination::Hostname(_) => target.ip(),
            GatewayDestination::Address(_, address) => *address,
        };
        let at = SocketAddr::new(ip, gateway.hbone_port);
        match self.instances(gateway, source.namespace()) {
            Some(Instances::Of(entry)) => {
                let candidates = entry.candidates(source, at, purpose, now, pick);
                candidates.into_iter().map(Instance::from).collect()
            }
            Some(Instances::One(workload)) => {
                let near = purpose == Purpose::LeadOut || !self.is_remote(workload);
                let Some(way) = (if near { way_to(workload, at) } else { Some(Way::Across) })
                else {
                    return Vec::new();
                };
                let expected = [workload.identity.clone()].into();
                vec![Instance { workload: workload.clone(), way, expected, standing: None }]
            }
            None => Vec::new(),
        }
    }

    /// Returns the workload that owns `address` on another network.
    pub(super) fn remote_workload_at(
        &self,
        network: &Network,
        address: IpAddr,
    ) -> Option<&Arc<Workload>> {
        let namesakes = self.by_remote_address.get(&(network.clone(), address))?;
        namesakes.first().map(|entry| &entry.workload)
    }

    /// Returns whether `name` is another network's; letters of either case count as the same.
    pub fn is_other_network(&self, name: &str) -> bool {
        !self.network().0.eq_ignore_ascii_case(name)
    }

    /// Returns whether a workload is on another network than this node.
    pub(super) fn is_remote(&self, workload: &Workload) -> bool {
        workload.network != *self.network()
    }

    /// Returns whether the gateway of the network of `remote` is there.
    pub(super) fn is_reachable(&self, remote: &Workload, client: &Workload) -> bool {
        let Some(gateway) = &remote.network_gateway else { return false };
        match self.instances(gateway, client.namespace()) {
            Some(Instances::Of(entry)) => {
                !entry.menu(client, gateway.hbone_port, Purpose::LeadOut).tiers().is_empty()
            }
            Some(Instances::One(workload)) => {
                !workload.addresses.is_empty() || workload.hostname.is_some()
            }
            None => false,
        }
    }

    /// Returns the ways to `remote`, which takes connections to `service` on another network, best
    /// first: one for each instance of the gateway that is tried.
    pub(super) fn hops_across(
        &self,
        remote: &Arc<Workload>,
        standing: Option<&Arc<Standing>>,
        service: &Arc<Service>,
        inquiry: Inquiry<'_>,
    ) -> Vec<Hop> {
        // Nobody could prove to be the right one.
        if service.subject_alt_names.is_empty() {
            return Vec::new();
        }
        let Some(gateway) = &remote.network_gateway else { return Vec::new() };
        let hop = |instance: Instance| {
            let Instance { way, expected, standing: gateway, .. } = instance;
            let service = service.clone();
            // There is one gateway on the way and no more.
            let (address, hostname) = way.place(inquiry.target)?;
            let transport = Transport::Gateway { address, expected, gateway, service };
            let (workload, standing) = (Some(remote.clone()), standing.cloned());
            Some(Hop { address: inquiry.target, hostname, workload, transport, standing })
        };
        let instances = self.instances_for(gateway, Purpose::LeadOut, inquiry);
        instances.into_iter().filter_map(hop).take(MAX_ATTEMPTS).collect()
    }
}

// === impl Instance ===

impl From<Candidate> for Instance {
    fn from(Candidate { choice, way }: Candidate) -> Self {
        let (workload, standing) = (choice.workload, Some(choice.standing));
        Self { workload, way, expected: choice.expected, standing }
    }
}

/// Returns the way to a workload that is referred to as `at`: there if that is an address of its own,
/// or to one that it has, of the same family if there is a choice.
fn way_to(workload: &Workload, at: SocketAddr) -> Option<Way> {
    match choose_address(&workload.addresses, IpFamilies::Automatic, at.ip()) {
        Some(address) => Some(Way::At(SocketAddr::new(address, at.port()))),
        None => Some(Way::Named(workload.hostname.clone()?, at.port())),
    }
}
