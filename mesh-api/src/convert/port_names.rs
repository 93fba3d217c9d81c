//! What the control plane says of the names of a service's ports, by which clients find them: an
//! extension of the service, whose content is what service entries say of ports. Proxies that do not
//! know it pass it over, as they do all extensions.

use super::{InvalidField, Problem, extension, list, port, required};
use crate::{
    proto::{
        networking::{ServiceEntry, ServicePort},
        workload::Extension,
    },
    workload::{PortName, PortTransport},
};

/// Name of the extension, for people; its type tells proxies what it is.
const NAME: &str = "port_names";

/// Type of the extension's content.
const TYPE_URL: &str = "type.googleapis.com/istio.networking.v1alpha3.ServiceEntry";

/// Protocol of ports that do not speak TCP.
const UDP: &str = "UDP";

/// Returns the extension that tells proxies the names of ports.
pub fn extension(ports: Vec<ServicePort>) -> Extension {
    extension::of(NAME, TYPE_URL, &ServiceEntry { ports })
}

/// Returns the names of ports that the extensions of a service tell; none if there are none.
pub(super) fn read(extensions: &[Extension]) -> Result<Vec<PortName>, InvalidField> {
    match extension::content::<ServiceEntry>(extensions, TYPE_URL)? {
        // As the configuration file calls them, too.
        Some((ServiceEntry { ports }, _)) => list(NAME, ports, PortName::try_from),
        None => Ok(Vec::new()),
    }
}

// === impl PortName ===

impl TryFrom<ServicePort> for PortName {
    type Error = InvalidField;

    fn try_from(wire: ServicePort) -> Result<Self, InvalidField> {
        let ServicePort { number, protocol, name } = wire;
        // All others are spoken over TCP, whatever they are.
        let is_udp = protocol.eq_ignore_ascii_case(UDP);
        let transport = if is_udp { PortTransport::Udp } else { PortTransport::Tcp };
        Ok(Self {
            name: required("name", name)?.into(),
            transport,
            service_port: port(number).map_err(|problem: Problem| problem.at("number"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, number: u32, protocol: &str) -> ServicePort {
        ServicePort { number, protocol: protocol.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn what_is_written_is_read_behind_extensions_of_others() {
        use PortTransport::{Tcp, Udp};

        let empty = Extension { name: "empty".to_owned(), config: None };
        let protocols = ["", "TCP", "GRPC", "UDP", "udp"];
        let ports = protocols.map(|protocol| named("p", 80, protocol));
        let read = read(&[empty.clone(), extension(ports.into())]).unwrap();
        let expected = [Tcp, Tcp, Tcp, Udp, Udp];
        let expected =
            expected.map(|transport| PortName { name: "p".into(), transport, service_port: 80 });
        assert_eq!(read, expected);
        assert_eq!(super::read(&[empty]), Ok(Vec::new()));
    }

    #[test]
    fn a_name_has_a_port() {
        for (port, expected) in [
            (named("", 80, ""), "port_names[0].name: is empty: set it"),
            (named("p", 65536, ""), "port_names[0].number: 65536 is not a port: use 1 to 65535"),
        ] {
            let found = read(&[extension(vec![port])]);
            assert_eq!(found.unwrap_err().to_string(), expected);
        }
    }
}
