//! Pieces of the wire form.

use std::net::IpAddr;

use bytes::Bytes;
use mesh_api::proto::workload::NetworkAddress;

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

/// Returns an address of a service, unless it is a range.
pub(super) fn address(address: &NetworkAddress) -> Option<IpAddr> {
    let octets = address.address.as_ref();
    let v4 = || <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(octets).ok().map(IpAddr::from);
    v4().or_else(v6).filter(|_| address.length.is_none())
}
