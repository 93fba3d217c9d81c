//! Lets user space use the shared types as map keys, map values and constants.

use core::net::IpAddr;

use crate::{
    Connection, Counts, ListenerKey, NetnsCookie, PodAddresses, PodConfig, ProbeSource,
    ProxyProcess,
    datagrams::DatagramRules,
    profiles::{CpuStack, HeapCounts},
};

// SAFETY: `repr(C)` or transparent, integers and byte arrays only, no padding: every byte is
// initialised and every bit pattern is valid.
unsafe impl aya::Pod for NetnsCookie {}
// SAFETY: as above.
unsafe impl aya::Pod for PodAddresses {}
// SAFETY: as above.
unsafe impl aya::Pod for PodConfig {}
// SAFETY: as above.
unsafe impl aya::Pod for ListenerKey {}
// SAFETY: as above.
unsafe impl aya::Pod for ProxyProcess {}
// SAFETY: as above.
unsafe impl aya::Pod for DatagramRules {}
// SAFETY: as above.
unsafe impl aya::Pod for Connection {}
// SAFETY: as above.
unsafe impl aya::Pod for ProbeSource {}
// SAFETY: as above.
unsafe impl aya::Pod for Counts {}
// SAFETY: as above.
unsafe impl aya::Pod for CpuStack {}
// SAFETY: as above.
unsafe impl aya::Pod for HeapCounts {}

// === impl ProbeSource ===

impl From<IpAddr> for ProbeSource {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        Self(crate::words(octets))
    }
}
