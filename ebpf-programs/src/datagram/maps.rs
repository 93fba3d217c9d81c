//! Maps of what becomes of datagrams, pinned as the others are.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LruHashMap, SockHash},
};
use fairlead_ebpf::{
    MAX_PODS, NetnsCookie,
    datagrams::{Asked, DatagramRules, MAX_ASKED},
};

/// What becomes of the datagrams of each enrolled pod.
#[map]
pub(super) static DATAGRAM_RULES: HashMap<NetnsCookie, DatagramRules> =
    HashMap::with_max_entries(MAX_PODS, 0);

/// Sockets by which a proxy takes DNS queries, one a pod. Those of pods without are missing.
#[map]
pub(super) static RESOLVERS: SockHash<NetnsCookie> = SockHash::with_max_entries(MAX_PODS, 0);

/// Peers whose datagrams are answers, of pods that take no others.
#[map]
pub(super) static ASKED: LruHashMap<Asked, u8> = LruHashMap::with_max_entries(MAX_ASKED, 0);
