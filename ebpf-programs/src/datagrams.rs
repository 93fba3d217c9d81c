//! Types and constants of what becomes of datagrams.

use crate::NetnsCookie;

/// Port of the proxy's own socket for DNS queries, on `lo` of each enrolled pod.
///
/// A query of a socket that is not connected is addressed to this port of its name server, and one
/// rule in the pod's namespace keeps it on `lo`. The answer comes from port 53 all the same.
pub const RESOLVER_PORT: u16 = 15053;

/// Port of name servers.
pub const DNS_PORT: u16 = 53;

/// Most peers that pods may have asked without a connected socket, and whose answers are known as
/// such. Only pods that refuse datagrams need it; the least recent is forgotten.
pub const MAX_ASKED: u32 = 65_536;

/// What becomes of the datagrams of a pod: any of the constants, together.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramRules(pub u32);

/// A peer that a pod has sent a datagram to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Namespace of the pod.
    pub netns: NetnsCookie,
    /// Address of the peer.
    pub address: [u32; 4],
    /// Port of the peer.
    pub port: u16,
    /// Keeps the size a multiple of the alignment without hidden padding.
    pub reserved: [u16; 3],
}

// === impl DatagramRules ===

impl DatagramRules {
    /// DNS queries go to a proxy while one answers them.
    pub const RESOLVE: Self = Self(1);

    /// A proxy answers them.
    pub const ANSWERED: Self = Self(16);

    /// The pod sends no datagrams but DNS queries.
    pub const REFUSE_SENT: Self = Self(2);

    /// The pod takes no datagrams but answers to its own.
    pub const REFUSE_RECEIVED: Self = Self(4);

    /// Whether [`Self::REFUSE_RECEIVED`] holds is for the policy of the pod to say. Of no meaning to
    /// the programs.
    pub const BY_POLICY: Self = Self(8);

    /// Returns whether all of `other` hold.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the rules with those of `other` holding, or not.
    #[must_use]
    pub const fn with(self, other: Self, hold: bool) -> Self {
        if hold { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
    }
}
