//! The header of the PROXY protocol: tells an application that is a proxy itself who connects and
//! where to.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mesh_api::identity::Identity;

/// First bytes of every header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and a connection that was made for someone else.
const VERSION_AND_COMMAND: u8 = 0x21;

/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Type of the field with the SPIFFE id of the client, of those that are free for applications.
const TYPE_IDENTITY: u8 = 0xd0;

/// Room for addresses of IPv6 and an identity, in bytes.
const USUAL_BYTES: usize = 192;

/// Returns the header of version 2 of a connection of `client`, which proved `identity`, to `target`.
pub fn encode(client: SocketAddr, target: SocketAddr, identity: Option<&Identity>) -> Vec<u8> {
    let mut body = Vec::with_capacity(USUAL_BYTES);
    let family = put_addresses(&mut body, client, target);
    let identity = identity.map(Identity::to_string);
    if let Some(text) = &identity
        && let Ok(length) = u16::try_from(text.len())
    {
        body.push(TYPE_IDENTITY);
        body.extend(length.to_be_bytes());
        body.extend(text.as_bytes());
    }
    // An identity has some hundred bytes; one that leaves no room for itself is left out.
    let addresses = if family == TCP4 { 12 } else { 36 };
    let length = u16::try_from(body.len()).unwrap_or(addresses);
    body.truncate(usize::from(length));
    let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + body.len());
    header.extend(SIGNATURE);
    header.extend([VERSION_AND_COMMAND, family]);
    header.extend(length.to_be_bytes());
    header.extend(body);
    header
}

/// Returns the header of version 1, which is a line of text.
pub fn encode_text(client: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let ports = format!("{} {}", client.port(), target.port());
    let line = match (client.ip(), target.ip()) {
        (IpAddr::V4(client), IpAddr::V4(target)) => format!("TCP4 {client} {target} {ports}"),
        (client, target) => format!("TCP6 {} {} {ports}", as_v6(client), as_v6(target)),
    };
    format!("PROXY {line}\r\n").into_bytes()
}

/// Both addresses have the family of the header: where they differ, IPv4 is written as IPv6.
fn put_addresses(body: &mut Vec<u8>, client: SocketAddr, target: SocketAddr) -> u8 {
    let family = match (client.ip(), target.ip()) {
        (IpAddr::V4(client), IpAddr::V4(target)) => {
            body.extend(client.octets());
            body.extend(target.octets());
            TCP4
        }
        (client, target) => {
            body.extend(as_v6(client).octets());
            body.extend(as_v6(target).octets());
            TCP6
        }
    };
    body.extend(client.port().to_be_bytes());
    body.extend(target.port().to_be_bytes());
    family
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_header_is_what_the_specification_says() {
        let header = encode(at("10.0.0.1:258"), at("10.0.0.2:80"), None);
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        expected.extend([10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 80]);
        assert_eq!(header, expected);
        let identity = "spiffe://td/ns/n/sa/s".parse().unwrap();
        let with = encode(at("10.0.0.1:258"), at("10.0.0.2:80"), Some(&identity));
        assert_eq!(&with[28..], b"\xd0\0\x15spiffe://td/ns/n/sa/s");
        assert_eq!(with[15], 12 + 3 + 21);
    }

    #[test]
    fn where_the_families_differ_both_are_written_as_the_wider_one() {
        let header = encode(at("10.0.0.1:1"), at("[fd00::2]:80"), None);
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        expected.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        expected.extend([0, 1, 0, 80]);
        assert_eq!(header, expected);
    }

    #[test]
    fn a_header_of_version_1_is_a_line() {
        for (client, target, expected) in [
            ("10.1.0.2:4000", "10.96.0.1:80", "PROXY TCP4 10.1.0.2 10.96.0.1 4000 80\r\n"),
            ("[fd00::2]:4000", "[fd00::1]:80", "PROXY TCP6 fd00::2 fd00::1 4000 80\r\n"),
            ("10.1.0.2:4000", "[fd00::1]:80", "PROXY TCP6 ::ffff:10.1.0.2 fd00::1 4000 80\r\n"),
            ("[fd00::2]:4000", "10.96.0.1:80", "PROXY TCP6 fd00::2 ::ffff:10.96.0.1 4000 80\r\n"),
        ] {
            assert_eq!(encode_text(at(client), at(target)), expected.as_bytes());
        }
    }
}
