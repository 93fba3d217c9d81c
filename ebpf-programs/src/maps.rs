//! Maps of the object. User space pins all but [`POD`] by name, so that they outlive a crash of the
//! proxy.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuHashMap, SockHash},
};
use fairlead_ebpf::{
    Connection, Counts, ListenerKey, MAX_PODS, MAX_PROBE_SOURCES, MAX_PROBES, MAX_PROXIES,
    NetnsCookie, PodAddresses, PodConfig, ProbeSource, ProxyProcess,
};

/// Pods whose outbound connections are captured.
#[map]
pub(crate) static ENROLLED: HashMap<NetnsCookie, PodAddresses> =
    HashMap::with_max_entries(MAX_PODS, 0);

/// Processes that are never captured, with the cookies of the sockets that registered them.
#[map]
pub(crate) static PROXIES: HashMap<ProxyProcess, u64> = HashMap::with_max_entries(MAX_PROXIES, 0);

/// Cookies of the sockets by which a proxy process registers itself.
#[map]
pub(crate) static REGISTRATIONS: HashMap<u64, u8> = HashMap::with_max_entries(MAX_PROXIES, 0);

/// Listening sockets, three a pod.
#[map]
pub(crate) static LISTENERS: SockHash<ListenerKey> = SockHash::with_max_entries(MAX_PODS * 3, 0);

/// Connections that the kubelet has opened and not closed.
#[map]
pub(crate) static PROBES: LruHashMap<Connection, u8> = LruHashMap::with_max_entries(MAX_PROBES, 0);

/// Addresses whose connections pass like those of the kubelet.
#[map]
pub(crate) static PROBE_SOURCES: HashMap<ProbeSource, u8> =
    HashMap::with_max_entries(MAX_PROBE_SOURCES, 0);

/// What became of the connections of each enrolled pod.
#[map]
pub(crate) static COUNTS: PerCpuHashMap<NetnsCookie, Counts> =
    PerCpuHashMap::with_max_entries(MAX_PODS, 0);

/// The pod that an instance of the socket-lookup program serves; each instance has its own.
#[map]
pub(crate) static POD: Array<PodConfig> = Array::with_max_entries(1, 0);
