//! The sockets by which the names that a pod asks for are resolved, as they travel between
//! processes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// The sockets inside a pod by which its DNS queries are answered.
#[derive(Debug)]
pub struct ResolverSockets {
    /// Takes the queries, of both families.
    pub queries: OwnedFd,
    /// Sends answers from the addresses of name servers, IPv4.
    pub answers_v4: OwnedFd,
    /// Sends answers from the addresses of name servers, IPv6.
    pub answers_v6: OwnedFd,
}

// === impl ResolverSockets ===

impl ResolverSockets {
    /// Takes the sockets out of a message; none if it did not carry exactly these.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [queries, answers_v4, answers_v6] = descriptors.try_into().ok()?;
        Some(Self { queries, answers_v4, answers_v6 })
    }

    /// Returns the sockets in the order of messages.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.queries.as_fd(), self.answers_v4.as_fd(), self.answers_v6.as_fd()]
    }

    /// Duplicates the sockets.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            queries: self.queries.try_clone()?,
            answers_v4: self.answers_v4.try_clone()?,
            answers_v6: self.answers_v6.try_clone()?,
        })
    }
}
