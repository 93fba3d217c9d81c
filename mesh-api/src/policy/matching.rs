//! Whether one match holds for one flow.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Condition, Flow, Match, ServiceAccountMatch, StringMatch};
use crate::identity::Identity;

/// Number of pieces that a principal is put together from.
const PRINCIPAL_PIECES: usize = 5;

// === impl Flow ===

impl Flow<'_> {
    /// Returns the flow with IPv4-mapped IPv6 addresses as the IPv4 addresses they stand for.
    pub(super) fn canonical(mut self) -> Self {
        self.source = self.source.to_canonical();
        self.destination.set_ip(self.destination.ip().to_canonical());
        self
    }
}

// === impl Match ===

impl Match {
    /// Returns whether no condition is set.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            namespaces,
            principals,
            service_accounts,
            source_ips,
            destination_ips,
            destination_ports,
        } = self;
        namespaces.is_empty()
            && principals.is_empty()
            && service_accounts.is_empty()
            && source_ips.is_empty()
            && destination_ips.is_empty()
            && destination_ports.is_empty()
    }

    /// Returns whether all conditions hold; `flow` is canonical.
    pub(super) fn holds(&self, flow: &Flow<'_>) -> bool {
        let destination = flow.destination.ip();
        self.destination_ports.holds(|port| *port == flow.destination.port())
            && self.source_ips.holds(|net| covers(net, flow.source))
            && self.destination_ips.holds(|net| covers(net, destination))
            && self.namespaces.holds(|m| m.hits_namespace(flow.identity))
            && self.principals.holds(|m| m.hits_principal(flow.identity))
            && self.service_accounts.holds(|account| account.hits(flow.identity))
    }
}

// === impl Condition ===

impl<T> Condition<T> {
    fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }

    fn holds(&self, hits: impl Fn(&T) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.iter().any(&hits)) && !self.none_of.iter().any(hits)
    }
}

// === impl StringMatch ===

impl StringMatch {
    fn hits_namespace(&self, identity: Option<&Identity>) -> bool {
        let namespace = identity.map_or("", |identity| identity.namespace.as_str());
        match self {
            Self::Exact(value) => namespace == &**value,
            Self::Prefix(value) => namespace.starts_with(&**value),
            Self::Suffix(value) => namespace.ends_with(&**value),
            Self::Presence => !namespace.is_empty(),
        }
    }

    fn hits_principal(&self, identity: Option<&Identity>) -> bool {
        let Some(identity) = identity else { return false };
        let pieces = principal(identity);
        match self {
            Self::Exact(value) => equals(&pieces, value),
            Self::Prefix(value) => starts_with(&pieces, value),
            Self::Suffix(value) => ends_with(&pieces, value),
            Self::Presence => true,
        }
    }
}

// === impl ServiceAccountMatch ===

impl ServiceAccountMatch {
    fn hits(&self, identity: Option<&Identity>) -> bool {
        identity.is_some_and(|identity| {
            identity.service_account == self.service_account && identity.namespace == self.namespace
        })
    }
}

/// The SPIFFE id without its scheme, in pieces: joining them would allocate for each decision.
fn principal(identity: &Identity) -> [&str; PRINCIPAL_PIECES] {
    let Identity { trust_domain, namespace, service_account } = identity;
    [trust_domain.as_str(), "/ns/", namespace.as_str(), "/sa/", service_account.as_str()]
}

fn equals(pieces: &[&str], value: &str) -> bool {
    let rest = pieces.iter().try_fold(value, |rest, piece| rest.strip_prefix(piece));
    rest.is_some_and(str::is_empty)
}

fn starts_with(pieces: &[&str], prefix: &str) -> bool {
    let mut rest = prefix;
    for piece in pieces {
        match rest.strip_prefix(piece) {
            Some(longer) => rest = longer,
            None => return piece.starts_with(rest),
        }
    }
    rest.is_empty()
}

fn ends_with(pieces: &[&str], suffix: &str) -> bool {
    let mut rest = suffix;
    for piece in pieces.iter().rev() {
        match rest.strip_suffix(piece) {
            Some(longer) => rest = longer,
            None => return piece.ends_with(rest),
        }
    }
    rest.is_empty()
}

fn covers(net: &IpNet, address: IpAddr) -> bool {
    net.contains(&address)
}

#[cfg(test)]
mod tests;
