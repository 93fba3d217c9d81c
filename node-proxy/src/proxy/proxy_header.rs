//! The header of the PROXY protocol, version 2: tells an application that is a proxy itself who
//! connects and where to.

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

/// Returns the header of a connection of `client`, which proved `identity`, to `target`.
pub(super) fn encode(
    client: SocketAddr,
    target: SocketAddr,
    identity: Option<&Identity>,
) -> Vec<u8> {
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
    use proptest::prelude::*;

    use super::*;

    /// A reader that knows no more than the specification (section 2.2).
    fn decode(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, Option<String>)> {
        let rest = bytes.strip_prefix(b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21")?;
        let (&family, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk()?;
        if rest.len() != usize::from(u16::from_be_bytes(*length)) {
            return None;
        }
        let address = |octets: &[u8]| match octets.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)),
            _ => Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)),
        };
        let size = match family {
            0x11 => 4,
            0x21 => 16,
            _ => return None,
        };
        let (addresses, rest) = rest.split_at_checked(2 * size)?;
        let (from, to) = addresses.split_at(size);
        let (ports, mut rest) = rest.split_first_chunk::<4>()?;
        let from = SocketAddr::new(address(from)?, u16::from_be_bytes([ports[0], ports[1]]));
        let to = SocketAddr::new(address(to)?, u16::from_be_bytes([ports[2], ports[3]]));
        let mut identity = None;
        while let Some((&[kind, high, low], value)) = rest.split_first_chunk() {
            let (value, next) = value.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            if kind == 0xd0 {
                identity = Some(String::from_utf8(value.to_vec()).ok()?);
            }
            rest = next;
        }
        rest.is_empty().then_some((from, to, identity))
    }

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
        let (from, to, _) = decode(&header).unwrap();
        assert_eq!((from, to), (at("[::ffff:10.0.0.1]:1"), at("[fd00::2]:80")));
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(client: SocketAddr, target: SocketAddr, named: bool) {
            let plain = |a: SocketAddr| SocketAddr::new(a.ip(), a.port());
            let (client, target) = (plain(client), plain(target));
            let identity: Identity = "spiffe://td/ns/n/sa/s".parse().unwrap();
            let header = encode(client, target, named.then_some(&identity));
            let (from, to, read) = decode(&header).unwrap();
            let same = |a: SocketAddr, b: SocketAddr| {
                a.ip().to_canonical() == b.ip().to_canonical() && a.port() == b.port()
            };
            prop_assert!(same(from, client) && same(to, target));
            prop_assert_eq!(read, named.then(|| identity.to_string()));
        }
    }
}
