//! Types and constants that the BPF programs and user space share.
//!
//! All types are `repr(C)` without padding, so that their bytes can be map keys and values.
//! Addresses are in network byte order; IPv4 addresses are written IPv4-mapped where one field
//! holds either family.
#![no_std]

pub mod datagrams;
pub mod profiles;
#[cfg(feature = "user")]
mod user;

/// Mark of the sockets whose packets stay inside the pod: captured connections of the application,
/// and the proxy's connections to it. One rule and one route in the pod's namespace act on it.
pub const CAPTURE_MARK: u32 = 0x0fa1_71ea;

/// Port that accepts HBONE tunnels in every enrolled pod.
pub const HBONE_PORT: u16 = 15008;

/// Most pods that one node enrols; bounds the maps. The kubelet's default limit is 110.
pub const MAX_PODS: u32 = 1024;

/// Most proxy processes that are exempt from capture at once: two during a hand-over, and room.
pub const MAX_PROXIES: u32 = 8;

/// Most open connections of the kubelet that are known; it has a few for each pod. The oldest are
/// forgotten: they are established, and not asked about any more.
pub const MAX_PROBES: u32 = 8192;

/// Most addresses whose connections pass as probes: several a family for one node.
pub const MAX_PROBE_SOURCES: u32 = 16;

/// Loopback address that a proxy process connects to in order to register itself (127.70.76.1).
///
/// The connect hook refuses the connection, and takes down the process if the socket's cookie is in
/// the registration map, which only user space that holds the map can have put there: capture makes
/// the socket, and the proxy that it gives it to connects it.
pub const REGISTRATION_ADDRESS: [u8; 4] = [127, 70, 76, 1];

/// Network-namespace cookie: identifies a namespace for the life of the machine, never reused.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsCookie(pub u64);

/// An enrolled pod as the connect hooks see it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodAddresses {
    /// IPv6 address, all zero if the pod has none.
    pub v6: [u8; 16],
    /// IPv4 address, all zero if the pod has none.
    pub v4: [u8; 4],
}

/// An enrolled pod as its own socket-lookup program sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodConfig {
    /// Namespace the program is attached to.
    pub netns: NetnsCookie,
    /// Addresses of the pod.
    pub addresses: PodAddresses,
    /// Keeps the size a multiple of the alignment without hidden padding.
    pub reserved: [u8; 4],
}

/// Which listening socket takes a connection.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// Connections that the pod opens.
    Outbound = 0,
    /// HBONE tunnels to the pod.
    InboundHbone = 1,
    /// Every other connection to the pod.
    InboundPlaintext = 2,
}

/// Key of a listening socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// Namespace of the pod.
    pub netns: NetnsCookie,
    /// [`Listener`] as a number.
    pub listener: u32,
    /// Keeps the size a multiple of the alignment without hidden padding.
    pub reserved: u32,
}

/// A process that is exempt from capture. The cgroup guards against a process id that is reused
/// by an application while no proxy runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProxyProcess {
    /// Id of the process's cgroup (v2).
    pub cgroup: u64,
    /// Thread-group id in the initial PID namespace.
    pub tgid: u32,
    /// Keeps the size a multiple of the alignment without hidden padding.
    pub reserved: u32,
}

/// A connection by its addresses and ports; IPv4 addresses are IPv4-mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Address that opens it.
    pub client: [u32; 4],
    /// Address that it is opened to.
    pub server: [u32; 4],
    /// Port of the client, in host byte order.
    pub client_port: u32,
    /// Port of the server, in host byte order.
    pub server_port: u32,
}

/// An address that probes come from; IPv4 addresses are IPv4-mapped.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProbeSource(pub [u32; 4]);

/// What became of a TCP connection, or of datagrams, of an enrolled pod. What stays within the pod is
/// not counted.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Opened by the pod, led to the proxy.
    OutboundCaptured = 0,
    /// Opened in the pod by a process that is exempt from capture: the proxy, in the pod's name.
    OutboundBypassed = 1,
    /// Opened by the pod and refused: `connect` failed with `EPERM`.
    OutboundRefused = 2,
    /// A tunnel to the pod, given to the proxy.
    InboundTunnel = 3,
    /// A connection to the pod outside a tunnel, given to the proxy.
    InboundPlaintext = 4,
    /// A probe, given to the application.
    InboundProbe = 5,
    /// To the pod and refused, for want of a proxy.
    InboundRefused = 6,
    /// DNS queries that were led to the proxy. As of all datagrams, of those that a connected socket
    /// sends only the connecting counts.
    DatagramResolved = 7,
    /// Datagrams that the pod sent, and that passed.
    DatagramSent = 8,
    /// Datagrams that the pod was refused to send.
    DatagramSentRefused = 9,
    /// Datagrams that arrived for a socket that is not connected, and passed.
    DatagramReceived = 10,
    /// Datagrams that arrived, and were refused.
    DatagramReceivedRefused = 11,
}

/// How many connections of a pod had each [`Fate`]; one instance for each processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub [u64; Fate::ALL.len()]);

// === impl PodAddresses ===

impl PodAddresses {
    /// Returns the IPv6 address as the four words that a BPF context holds.
    pub const fn v6_words(&self) -> [u32; 4] {
        words(self.v6)
    }
}

/// Returns an address as the four words that a BPF context holds.
const fn words(a: [u8; 16]) -> [u32; 4] {
    [
        u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
        u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
        u32::from_ne_bytes([a[8], a[9], a[10], a[11]]),
        u32::from_ne_bytes([a[12], a[13], a[14], a[15]]),
    ]
}

// === impl ListenerKey ===

impl ListenerKey {
    /// Returns the key of one of a pod's listeners.
    pub const fn new(netns: NetnsCookie, listener: Listener) -> Self {
        Self { netns, listener: listener as u32, reserved: 0 }
    }
}

// === impl Fate ===

impl Fate {
    /// Every fate, in the order of [`Counts`].
    pub const ALL: [Self; 12] = [
        Self::OutboundCaptured,
        Self::OutboundBypassed,
        Self::OutboundRefused,
        Self::InboundTunnel,
        Self::InboundPlaintext,
        Self::InboundProbe,
        Self::InboundRefused,
        Self::DatagramResolved,
        Self::DatagramSent,
        Self::DatagramSentRefused,
        Self::DatagramReceived,
        Self::DatagramReceivedRefused,
    ];
}
