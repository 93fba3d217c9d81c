//! Which service a pod means by a name.

mod ports;

use std::{iter, net::IpAddr, sync::Arc};

use mesh_api::{
    identity::Namespace,
    workload::{Health, IpFamilies, Service, TunnelProtocol, Workload},
};

pub use self::ports::NamedPorts;
use super::snapshot::{MeshState, ServiceEntry, first_max};

/// How names are completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// Domain of the cluster.
    pub domain: Arc<str>,
    /// Namespace whose services win over those of the same name in others.
    pub preferred: Option<Namespace>,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    entry: ServiceEntry<'a>,
    state: &'a MeshState,
    /// The name that was found, if it is not the one that was asked for: that one had a domain
    /// added to it by the client's resolver.
    pub alias_of: Option<&'a str>,
}

/// What may be in front of a name's own part, as a client's resolver adds it.
struct Candidate<'a> {
    hostname: String,
    alias_of: Option<&'a str>,
}

// === impl MeshState ===

impl MeshState {
    /// Returns what a pod of namespace `client` means by `name`, which is in lower case and has no
    /// final dot; none if the mesh does not know it.
    pub fn resolve<'a>(
        &'a self,
        name: &'a str,
        client: &Namespace,
        naming: &Naming,
    ) -> Option<Named<'a>> {
        candidates(name, client, &naming.domain).find_map(|Candidate { hostname, alias_of }| {
            if let Some(entry) = self.service_meant(&hostname, client, naming) {
                return Some(Named { entry, state: self, alias_of });
            }
            let wildcard = wildcards(&hostname)
                .find_map(|pattern| self.service_meant(&pattern, client, naming))?;
            Some(Named { entry: wildcard, state: self, alias_of: None })
        })
    }

    /// Returns whether connections to `address` go through the mesh.
    pub fn is_meshed(&self, address: IpAddr, client: &Namespace) -> bool {
        let hbone = |workload: &Arc<Workload>| workload.tunnel_protocol == TunnelProtocol::Hbone;
        self.workload_at(address).is_some_and(hbone)
            || self
                .service_at(address, client)
                .is_some_and(|entry| entry.members.workloads().any(hbone))
    }

    /// Of services of one name: that of the client's namespace, else the canonical one, else that of
    /// the preferred namespace, else the first.
    fn service_meant(
        &self,
        hostname: &str,
        client: &Namespace,
        naming: &Naming,
    ) -> Option<ServiceEntry<'_>> {
        let keys = self.keys_named(hostname);
        let own = format!(".svc.{}", naming.domain);
        let answered = |service: &&Arc<Service>| {
            !service.addresses.is_empty() || service.key.hostname.ends_with(&own)
        };
        let known = self.visible(keys, client).filter(answered);
        let best = first_max(known, |service| {
            let namespace = &service.key.namespace;
            (namespace == client, service.canonical, Some(namespace) == naming.preferred.as_ref())
        });
        best.map(|service| self.with_endpoints(service))
    }
}

// === impl Named ===

impl<'a> Named<'a> {
    /// Returns the addresses: those of the service, or of its endpoints if it has none.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let service = self.entry.service;
        let families = service.ip_families;
        let allowed = move |address: &IpAddr| match families {
            IpFamilies::Automatic | IpFamilies::Dual => true,
            IpFamilies::V4Only => address.is_ipv4(),
            IpFamilies::V6Only => address.is_ipv6(),
        };
        if service.addresses.is_empty() {
            let usable = |w: &&Arc<_>| is_usable(w, service) && !self.state.is_remote(w);
            let workloads = self.entry.members.workloads().filter(usable);
            return workloads.flat_map(|w| w.addresses.iter().copied()).filter(allowed).collect();
        }
        let near = service.addresses.iter().filter(|vip| vip.network == *self.state.network());
        let single = near.filter(|vip| vip.address.prefix_len() == vip.address.max_prefix_len());
        single.map(|vip| vip.address.addr()).filter(allowed).collect()
    }

    /// Returns the service.
    pub fn service(&self) -> &'a Arc<Service> {
        self.entry.service
    }
}

fn is_usable(workload: &Workload, service: &Service) -> bool {
    workload.health == Health::Healthy || service.allow_unhealthy
}

/// Returns the full names that `name` may be short for, the likeliest first.
fn candidates<'a>(
    name: &'a str,
    namespace: &Namespace,
    domain: &str,
) -> impl Iterator<Item = Candidate<'a>> {
    let direct = completions(name, namespace, domain);
    let direct = direct.into_iter().map(|hostname| Candidate { hostname, alias_of: None });
    let searched =
        [format!(".{namespace}.svc.{domain}"), format!(".svc.{domain}"), format!(".{domain}")];
    let namespace = namespace.clone();
    let domain = domain.to_owned();
    let stripped = searched.into_iter().filter_map(move |suffix| name.strip_suffix(&suffix));
    let stripped = stripped.flat_map(move |short| {
        let completed = completions(short, &namespace, &domain).into_iter();
        completed.map(move |hostname| Candidate { hostname, alias_of: Some(short) })
    });
    direct.chain(stripped)
}

/// Returns the full names that a name stands for by itself.
fn completions(name: &str, namespace: &Namespace, domain: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    let is_svc = name.rsplit('.').next() == Some("svc");
    match name.split('.').count() {
        1 => names.push(format!("{name}.{namespace}.svc.{domain}")),
        2 => {
            names.push(format!("{name}.svc.{domain}"));
            names.push(format!("{name}.{namespace}.svc.{domain}"));
        }
        3 => {
            if is_svc {
                names.push(format!("{name}.{domain}"));
            }
            names.push(format!("{name}.svc.{domain}"));
        }
        4 if is_svc => names.push(format!("{name}.{domain}")),
        _ => {}
    }
    names
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

/// Returns the patterns that match a name, the narrowest first: `*.b.c` and `*.c` for `a.b.c`.
fn wildcards(name: &str) -> impl Iterator<Item = String> {
    iter::successors(parent(name), |name| parent(name)).map(|parent| format!("*.{parent}"))
}

#[cfg(test)]
mod tests;
