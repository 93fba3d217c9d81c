//! The messages between capture and a proxy.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use fairlead_ebpf::NetnsCookie;
use mesh_api::identity::{Namespace, ServiceAccount};
use serde::{Deserialize, Serialize};

use crate::{api::PodName, explain::Decision};

/// Most pods that one [`ToCapture::Pods`] or [`ToProxy::Counted`] describes.
pub const MAX_PODS_PER_MESSAGE: usize = 64;

/// Longest [`PodReport::problem`], in bytes; the rest is cut off.
pub const MAX_PROBLEM_BYTES: usize = 512;

/// What capture tells a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToProxy {
    /// The first message.
    Hello {
        /// Version of the protocol.
        version: u16,
    },
    /// Carries a socket: connecting it exempts the process from capture. Answered with
    /// [`ToCapture::Registered`].
    Register,
    /// Carries the listening sockets for operators: metrics, readiness, admin.
    Endpoints,
    /// Carries the listening sockets of a pod: outbound, tunnels, plaintext. Answered with
    /// [`ToCapture::Serving`].
    Serve(ServedPod),
    /// Carries the sockets by which DNS queries of a pod are taken and answered, in place of
    /// earlier ones. Answered with [`ToCapture::Resolving`].
    Resolve {
        /// The pod.
        pod: PodId,
    },
    /// Carries sockets made inside the pod. Fewer than were asked for if `error` says why.
    Sockets {
        /// The pod.
        pod: PodId,
        /// Their kind.
        kind: SocketKind,
        /// Number of the operating system's error that ended the making.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<i32>,
    },
    /// Every pod on record has been given. Answered with [`ToCapture::Complete`].
    Recorded,
    /// Accept no more connections of the pod; open ones go on. Answered with
    /// [`ToCapture::Silent`], then [`ToCapture::Idle`].
    Release {
        /// The pod.
        pod: PodId,
    },
    /// End the connections of a pod whose network is gone. Answered with [`ToCapture::Silent`], then
    /// [`ToCapture::Idle`].
    Cut {
        /// The pod.
        pod: PodId,
    },
    /// Describe the pods. Answered with [`ToCapture::Pods`].
    Describe {
        /// Repeated in the answer.
        request: u64,
    },
    /// Explain what becomes of a connection. Answered with [`ToCapture::Explained`].
    Explain {
        /// Repeated in the answer.
        request: u64,
        /// The pod that makes it.
        pod: PodId,
        /// Where it goes.
        to: SocketAddr,
    },
    /// No more pods can be enrolled on this node; proxies have the metrics.
    PodLimitReached,
    /// How many pods are to be in the mesh and are not captured; proxies have the metrics.
    Waiting {
        /// Their number.
        pods: u64,
    },
    /// What the kernel has counted of the captured pods; proxies have the metrics. A report replaces
    /// the one before, and may come in parts.
    Counted {
        /// At most [`MAX_PODS_PER_MESSAGE`].
        pods: Vec<CountedPod>,
        /// Whether it is the last part.
        last: bool,
    },
    /// Accept no more, let open connections finish, and end.
    Drain {
        /// Time for that, in milliseconds; what is open then is ended.
        grace_ms: u64,
        /// Whether another proxy goes on for this one.
        succeeded: bool,
    },
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// What a proxy tells capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToCapture {
    /// The first message.
    Hello {
        /// Version of the protocol.
        version: u16,
        /// Number of [`Self::Holding`] that follow.
        holding: usize,
        /// Whether the process accepts no more connections.
        draining: bool,
    },
    /// Carries the listening sockets of a pod, from before capture was started anew.
    Holding {
        /// The pod.
        pod: PodId,
    },
    /// Carries the listening sockets for operators, from before capture was started anew.
    HoldingEndpoints,
    /// The process has connected the socket of [`ToProxy::Register`].
    Registered,
    /// The pod's connections are accepted.
    Serving {
        /// The pod.
        pod: PodId,
    },
    /// DNS queries of the pod are answered.
    Resolving {
        /// The pod.
        pod: PodId,
    },
    /// Whether the policies of the pod refuse datagrams.
    RefuseDatagrams {
        /// The pod.
        pod: PodId,
        /// Whether they do.
        refuse: bool,
    },
    /// All pods on record are served.
    Complete,
    /// Nothing accepts connections of the pod any more.
    Silent {
        /// The pod.
        pod: PodId,
    },
    /// No connection of a released pod is open.
    Idle {
        /// The pod.
        pod: PodId,
    },
    /// Make sockets inside a pod. Answered with [`ToProxy::Sockets`].
    Need {
        /// The pod.
        pod: PodId,
        /// Their kind.
        kind: SocketKind,
        /// How many, at most [`MAX_DESCRIPTORS`](super::channel::MAX_DESCRIPTORS).
        count: usize,
    },
    /// A part of the answer to [`ToProxy::Describe`].
    Pods {
        /// Number of the question.
        request: u64,
        /// At most [`MAX_PODS_PER_MESSAGE`].
        pods: Vec<PodReport>,
        /// Whether it is the last part.
        last: bool,
    },
    /// The answer to [`ToProxy::Explain`].
    Explained {
        /// Number of the question.
        request: u64,
        /// What becomes of the connection; none if the process does not have the pod.
        decision: Option<Box<Decision>>,
    },
    /// An operator asks that the whole node proxy ends, in order.
    Quit,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// One enrolment of a pod. A pod that is released and enrolled again has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodId {
    /// Cookie of the pod's network namespace.
    pub netns: u64,
    /// Time of the enrolment, in nanoseconds since the machine was started.
    pub enrolment: u64,
}

/// What a proxy knows of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedPod {
    /// Names the enrolment.
    pub pod: PodId,
    /// Namespace of the pod.
    pub namespace: Namespace,
    /// Name of the pod.
    pub name: PodName,
    /// Service account that the pod runs as.
    pub service_account: ServiceAccount,
    /// Addresses of the pod, at most one a family.
    pub addresses: Vec<IpAddr>,
}

/// What the kernel has counted of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedPod {
    /// Namespace of the pod.
    pub namespace: Namespace,
    /// Name of the pod.
    pub name: PodName,
    /// How many connections had each [`Fate`](fairlead_ebpf::Fate), in the order of
    /// [`Fate::ALL`](fairlead_ebpf::Fate::ALL). A later release may know more of them.
    pub counts: Vec<u64>,
}

/// What a proxy says of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReport {
    /// The pod.
    pub pod: PodId,
    /// Connections open.
    pub connections: u64,
    /// Why the pod has no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Sockets that only capture can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketKind {
    /// For connections that leave the pod, IPv4.
    OutboundV4,
    /// For connections that leave the pod, IPv6.
    OutboundV6,
    /// For connections to the application in the name of its client, IPv4.
    DeliveryV4,
    /// For connections to the application in the name of its client, IPv6.
    DeliveryV6,
    /// For datagrams that leave the pod, IPv4.
    DatagramV4,
    /// For datagrams that leave the pod, IPv6.
    DatagramV6,
}

/// Returns what a process without privilege says, fit for a log and a terminal.
pub fn printable(mut text: String, longest: usize) -> String {
    text.retain(|c| !c.is_control());
    text.truncate(text.floor_char_boundary(longest));
    text.shrink_to_fit();
    text
}

// === impl PodId ===

impl PodId {
    /// Returns the pod's network namespace.
    pub fn netns(self) -> NetnsCookie {
        NetnsCookie(self.netns)
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.netns, self.enrolment)
    }
}

// === impl SocketKind ===

impl SocketKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::OutboundV4,
        Self::OutboundV6,
        Self::DeliveryV4,
        Self::DeliveryV6,
        Self::DatagramV4,
        Self::DatagramV6,
    ];

    /// The kinds of which a proxy is given some with each pod; of others when it asks.
    pub const FIRST: [Self; 4] =
        [Self::OutboundV4, Self::OutboundV6, Self::DeliveryV4, Self::DeliveryV6];

    /// Returns the kind for connections that leave the pod to `to`.
    pub fn outbound(to: IpAddr) -> Self {
        if to.is_ipv4() { Self::OutboundV4 } else { Self::OutboundV6 }
    }

    /// Returns the kind for connections to the application in the name of `client`.
    pub fn delivery(client: IpAddr) -> Self {
        if client.is_ipv4() { Self::DeliveryV4 } else { Self::DeliveryV6 }
    }

    /// Returns the kind for datagrams that leave the pod to `to`.
    pub fn datagram(to: IpAddr) -> Self {
        if to.is_ipv4() { Self::DatagramV4 } else { Self::DatagramV6 }
    }

    /// Returns whether a pod with these addresses uses sockets of this kind.
    pub fn serves(self, addresses: &[IpAddr]) -> bool {
        addresses.iter().any(|address| match self {
            Self::OutboundV4 | Self::DeliveryV4 | Self::DatagramV4 => address.is_ipv4(),
            Self::OutboundV6 | Self::DeliveryV6 | Self::DatagramV6 => address.is_ipv6(),
        })
    }
}

#[cfg(test)]
mod tests;
