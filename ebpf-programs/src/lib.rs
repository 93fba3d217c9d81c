//! Types and constants that the BPF programs and user space share.
//!
//! All types are `repr(C)` without padding, so that their bytes can be map keys and values.
//! Addresses are in network byte order; IPv4 addresses are written IPv4-mapped where one field
//! holds either family.
#![no_std]

pub mod datagrams;
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

// === impl PodAddresses ===

impl PodAddresses {
    /// Returns the IPv6 address as the four words that a BPF context holds.
    pub const fn v6_words(&self) -> [u32; 4] {
        let a = &self.v6;
        [
            u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
            u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
            u32::from_ne_bytes([a[8], a[9], a[10], a[11]]),
            u32::from_ne_bytes([a[12], a[13], a[14], a[15]]),
        ]
    }
}

// === impl ListenerKey ===

impl ListenerKey {
    /// Returns the key of one of a pod's listeners.
    pub const fn new(netns: NetnsCookie, listener: Listener) -> Self {
        Self { netns, listener: listener as u32, reserved: 0 }
    }
}
