//! Lets user space use the shared types as map keys, map values and constants.

use crate::{
    ListenerKey, NetnsCookie, PodAddresses, PodConfig, ProxyProcess,
    datagrams::{DatagramCounts, DatagramRules},
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
unsafe impl aya::Pod for DatagramCounts {}
