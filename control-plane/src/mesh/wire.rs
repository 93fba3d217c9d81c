//! Pieces of the wire form.

use std::net::IpAddr;

use bytes::Bytes;

/// Returns the octets of an address.
pub(super) fn octets(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

/// Returns the name that finds a resource by one of its addresses, on demand.
pub(super) fn alias(network: &str, address: IpAddr) -> Box<str> {
    format!("{network}/{address}").into()
}
