//! Listening sockets as they travel between processes.

use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Port of the listener for connections that a pod opens.
pub const OUTBOUND_PORT: u16 = 15001;

/// Port of the listener for plaintext connections to a pod.
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;

/// The listening sockets of a pod.
#[derive(Debug)]
pub struct PodListeners {
    /// Connections that the pod opens.
    pub outbound: TcpListener,
    /// HBONE tunnels to the pod.
    pub inbound_hbone: TcpListener,
    /// Every other connection to the pod.
    pub inbound_plaintext: TcpListener,
}

/// The listening sockets for operators.
#[derive(Debug)]
pub struct EndpointListeners {
    /// Prometheus metrics.
    pub metrics: TcpListener,
    /// The readiness probe.
    pub readiness: TcpListener,
    /// The admin interface.
    pub admin: TcpListener,
}

// === impl PodListeners ===

impl PodListeners {
    /// Takes the sockets out of a message; none if it did not carry exactly these.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [outbound, inbound_hbone, inbound_plaintext] = three(descriptors)?;
        Some(Self { outbound, inbound_hbone, inbound_plaintext })
    }

    /// Returns the sockets in the order of messages.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.outbound.as_fd(), self.inbound_hbone.as_fd(), self.inbound_plaintext.as_fd()]
    }

    /// Duplicates the sockets.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            outbound: self.outbound.try_clone()?,
            inbound_hbone: self.inbound_hbone.try_clone()?,
            inbound_plaintext: self.inbound_plaintext.try_clone()?,
        })
    }
}

// === impl EndpointListeners ===

impl EndpointListeners {
    /// Takes the sockets out of a message; none if it did not carry exactly these.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [metrics, readiness, admin] = three(descriptors)?;
        Some(Self { metrics, readiness, admin })
    }

    /// Returns the sockets in the order of messages.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.metrics.as_fd(), self.readiness.as_fd(), self.admin.as_fd()]
    }

    /// Duplicates the sockets.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            metrics: self.metrics.try_clone()?,
            readiness: self.readiness.try_clone()?,
            admin: self.admin.try_clone()?,
        })
    }
}

fn three(descriptors: Vec<OwnedFd>) -> Option<[TcpListener; 3]> {
    <[OwnedFd; 3]>::try_from(descriptors).ok().map(|sockets| sockets.map(TcpListener::from))
}
