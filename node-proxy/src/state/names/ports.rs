//! Which port of a service a pod means by a name such as `_https._tcp.api.example.com` (RFC 2782).

use mesh_api::{
    identity::Namespace,
    workload::{PortName, PortTransport},
};

use super::{Named, Naming};
use crate::state::snapshot::MeshState;

/// What begins the labels in front of a host.
const MARK: char = '_';

/// What begins the host of a service that stands for many.
const WILDCARD: &str = "*.";

/// What a name of this form stands for.
#[derive(Clone, Debug)]
pub struct NamedPorts<'a> {
    /// The host.
    pub host: Named<'a>,
    /// Name by which the host is found.
    pub target: &'a str,
    /// The ports; none if names below this one have some.
    pub ports: Vec<u16>,
    /// The name that was found, if it is not the one that was asked for: that one had a domain added
    /// to it by the client's resolver.
    pub alias_of: Option<&'a str>,
}

/// A name of this form.
#[derive(Clone, Copy, Debug)]
struct Parts<'a> {
    /// Name of the port; none in the name that is above those of all ports.
    port: Option<&'a str>,
    transport: PortTransport,
    host: &'a str,
}

// === impl MeshState ===

impl MeshState {
    /// Returns the ports that a pod of namespace `client` means by `name`, which is in lower case and
    /// has no final dot; none if the mesh does not know it. Hosts are seen as by their addresses.
    pub fn resolve_ports<'a>(
        &'a self,
        name: &'a str,
        client: &Namespace,
        naming: &Naming,
    ) -> Option<NamedPorts<'a>> {
        let asked = Parts::of(name)?;
        let host = self.resolve(asked.host, client, naming)?;
        let service = host.service();
        let mut meant = service.port_names.iter().filter(|port| asked.mean(port)).peekable();
        meant.peek()?;
        let ports = match asked.port {
            Some(_) => meant.map(|port| port.service_port).collect(),
            None => Vec::new(),
        };
        let added = host.alias_of.and_then(|short| asked.host.strip_prefix(short));
        let alias_of = added.and_then(|added| name.strip_suffix(added));
        let hostname = &*service.key.hostname;
        let target = if hostname.starts_with(WILDCARD) { asked.host } else { hostname };
        Some(NamedPorts { host, target, ports, alias_of })
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (first, rest) = marked(name)?;
        if let Some((second, host)) = marked(rest) {
            return Some(Self { port: Some(first), transport: transport(second)?, host });
        }
        Some(Self { port: None, transport: transport(first)?, host: rest })
    }

    fn mean(&self, port: &PortName) -> bool {
        port.transport == self.transport
            && self.port.is_none_or(|name| port.name.eq_ignore_ascii_case(name))
    }
}

/// Takes a label off that is marked.
fn marked(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(MARK)?.split_once('.')
}

fn transport(label: &str) -> Option<PortTransport> {
    match label {
        "tcp" => Some(PortTransport::Tcp),
        "udp" => Some(PortTransport::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::{config::LocalConfig, workload::Network};

    use super::*;

    const MESH: &str = r#"
services:
- {name: api, namespace: shop, hostname: Api.example.com, addresses: ["240.240.0.1"], port_names: [{name: https, number: 443, protocol: HTTPS}, {name: Admin, number: 8443}, {name: quic, number: 443, protocol: UDP}, {name: tcp, number: 7}]}
- {name: wild, namespace: shop, hostname: "*.wild.example", addresses: ["240.240.0.2"], port_names: [{name: db, number: 5432}]}
- {name: silent, namespace: shop, hostname: silent.example, addresses: ["240.240.0.3"], ports: [{service_port: 80, target_port: 80}]}
- {name: secret, namespace: far, hostname: secret.example, addresses: ["240.240.0.4"], visibility: NAMESPACE, port_names: [{name: db, number: 1}]}
- {name: bare, namespace: shop, hostname: bare.example, port_names: [{name: db, number: 1}]}
- {name: db, namespace: shop, hostname: db.shop.svc.cluster.local, port_names: [{name: db, number: 5432}]}
- {name: twin, namespace: one, hostname: twin.example, addresses: ["240.240.1.1"], port_names: [{name: db, number: 1}]}
- {name: twin, namespace: shop, hostname: twin.example, addresses: ["240.240.1.2"], port_names: [{name: db, number: 2}]}
"#;

    /// Returns the target and its ports, and what the name is an alias of.
    fn resolve(name: &str, namespace: &str) -> Option<String> {
        let mesh = MeshState::new(LocalConfig::parse(MESH).unwrap(), Network::default());
        let naming = Naming { domain: "cluster.local".into(), preferred: None };
        let named = mesh.resolve_ports(name, &namespace.parse().unwrap(), &naming)?;
        let alias = named.alias_of.map(|name| format!("{name}: ")).unwrap_or_default();
        Some(format!("{alias}{} {:?}", named.target, named.ports))
    }

    #[test]
    fn a_port_is_found_by_its_name_protocol_and_host() {
        let api = "Api.example.com";
        for (name, expected) in [
            ("_https._tcp.api.example.com", Some(format!("{api} [443]"))),
            ("_admin._tcp.api.example.com", Some(format!("{api} [8443]"))),
            ("_quic._udp.api.example.com", Some(format!("{api} [443]"))),
            ("_tcp._tcp.api.example.com", Some(format!("{api} [7]"))),
            // There are names below these.
            ("_tcp.api.example.com", Some(format!("{api} []"))),
            ("_udp.api.example.com", Some(format!("{api} []"))),
            ("_udp.twin.example", None),
            ("_https._udp.api.example.com", None),
            ("_quic._tcp.api.example.com", None),
            ("_https._sctp.api.example.com", None),
            ("_http._tcp.api.example.com", None),
            ("https._tcp.api.example.com", None),
            ("_https.tcp.api.example.com", None),
            ("api.example.com", None),
            ("_db._tcp.other.example.com", None),
            // What has no names is the name server's.
            ("_http._tcp.silent.example", None),
            ("_tcp.silent.example", None),
            ("_tcp", None),
            ("_._tcp.", None),
            ("", None),
        ] {
            assert_eq!(resolve(name, "shop"), expected, "{name}");
        }
    }

    #[test]
    fn hosts_are_seen_as_by_their_addresses() {
        for (name, namespace, expected) in [
            ("_db._tcp.secret.example", "shop", None),
            ("_db._tcp.secret.example", "far", Some("secret.example [1]")),
            ("_db._tcp.twin.example", "shop", Some("twin.example [2]")),
            ("_db._tcp.twin.example", "far", Some("twin.example [1]")),
            // Of a host outside, without an address, name servers know more.
            ("_db._tcp.bare.example", "shop", None),
            ("_db._tcp.a.wild.example", "shop", Some("a.wild.example [5432]")),
            ("_db._tcp.db", "shop", Some("db.shop.svc.cluster.local [5432]")),
            ("_db._tcp.db.shop", "far", Some("db.shop.svc.cluster.local [5432]")),
            // A resolver adds its search domains.
            (
                "_admin._tcp.api.example.com.shop.svc.cluster.local",
                "shop",
                Some("_admin._tcp.api.example.com: Api.example.com [8443]"),
            ),
            (
                "_db._tcp.a.wild.example.cluster.local",
                "shop",
                Some("a.wild.example.cluster.local [5432]"),
            ),
        ] {
            assert_eq!(resolve(name, namespace).as_deref(), expected, "{name} for {namespace}");
        }
    }
}
