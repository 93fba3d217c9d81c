//! The header of the PROXY protocol, read by a decoder that knows no more than the specification.

use std::net::{IpAddr, SocketAddr};

use fairlead_tunnel::proxy_header::encode;
use mesh_api::identity::Identity;

/// Type of the field with the client's SPIFFE id.
const TYPE_IDENTITY: u8 = 0xd0;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    from: SocketAddr,
    to: SocketAddr,
    identity: Option<String>,
}

/// The input is which addresses are IPv6, two addresses with ports, and an identity. What is written
/// for them reads as them.
pub fn proxy_header(data: &[u8]) {
    let Some((&families, rest)) = data.split_first() else { return };
    let Some((from, rest)) = address(families & 1 != 0, rest) else { return };
    let Some((to, rest)) = address(families & 2 != 0, rest) else { return };
    let identity = std::str::from_utf8(rest).ok().and_then(|text| text.parse::<Identity>().ok());
    let header = encode(from, to, identity.as_ref());
    let said = decode(&header).unwrap_or_else(|| panic!("{header:02x?}"));
    // Where the families differ, both are written as IPv6.
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    assert_eq!((plain(said.from), plain(said.to)), (plain(from), plain(to)));
    assert_eq!(said.from.is_ipv4(), from.is_ipv4() && to.is_ipv4());
    assert_eq!(said.identity, identity.map(|identity| identity.to_string()));
}

fn address(is_v6: bool, bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest): (IpAddr, _) = if is_v6 {
        let (octets, rest) = bytes.split_first_chunk::<16>()?;
        ((*octets).into(), rest)
    } else {
        let (octets, rest) = bytes.split_first_chunk::<4>()?;
        ((*octets).into(), rest)
    };
    let (port, rest) = rest.split_first_chunk()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

/// Reads a header of version 2 (section 2.2 of the specification).
fn decode(bytes: &[u8]) -> Option<Said> {
    let rest = bytes.strip_prefix(b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21")?;
    let (&family, rest) = rest.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    if rest.len() != usize::from(u16::from_be_bytes(*length)) {
        return None;
    }
    let (from, to, mut rest) = match family {
        0x11 => addresses::<4>(rest)?,
        0x21 => addresses::<16>(rest)?,
        _ => return None,
    };
    let mut identity = None;
    while let Some((&[kind, high, low], value)) = rest.split_first_chunk() {
        let (value, next) = value.split_at_checked(u16::from_be_bytes([high, low]).into())?;
        if kind == TYPE_IDENTITY {
            identity = Some(String::from_utf8(value.to_vec()).ok()?);
        }
        rest = next;
    }
    rest.is_empty().then_some(Said { from, to, identity })
}

fn addresses<const N: usize>(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (from, rest) = bytes.split_first_chunk::<N>()?;
    let (to, rest) = rest.split_first_chunk::<N>()?;
    let (&[a, b, c, d], rest) = rest.split_first_chunk()?;
    let (from_port, to_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let at = |octets: &[u8; N], port| SocketAddr::new(IpAddr::from(*octets), port);
    Some((at(from, from_port), at(to, to_port), rest))
}
