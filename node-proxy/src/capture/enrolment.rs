//! Brings a pod into the mesh and takes it out again.
//!
//! Order matters: inbound steering and the routes are in place before the first connection of the
//! pod is captured, and are undone in reverse, so that no packet escapes in between.

use std::{io, net::IpAddr, os::fd::AsFd, path::Path, sync::Arc};

use fairlead_ebpf::{
    HBONE_PORT, Listener, PodAddresses, PodConfig,
    datagrams::{DatagramRules, RESOLVER_PORT},
};
use fairlead_sys::{
    datagram::{answers, queries},
    netns::Netns,
    socket::{Family, netns_cookie, probe, transparent_listener},
};

use super::{
    programs::{Programs, ProgramsError},
    routing::{PodRouting, RoutingError, Sysctls},
};
use crate::link::{
    listeners::{INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT, PodListeners},
    resolver::ResolverSockets,
};

/// Why a pod could not be enrolled or released.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The namespace cannot be entered.
    #[error("cannot enter the network namespace {path}: {cause}")]
    Netns {
        /// Path of the namespace.
        path: String,
        /// What went wrong.
        cause: io::Error,
    },
    /// The namespace is the one that this process runs in.
    #[error(
        "the network namespace {path} is that of fairlead-node itself; a pod in the node's network \
         cannot be in the mesh"
    )]
    OwnNetns {
        /// Path of the namespace.
        path: String,
    },
    /// A listening socket could not be opened.
    #[error(
        "cannot listen on port {port} inside the pod: {cause}; the ports 15001, 15006, 15008 and \
         15053 must be free there"
    )]
    Listen {
        /// The port.
        port: u16,
        /// What went wrong.
        cause: io::Error,
    },
    /// The namespace is another pod's.
    #[error("the network namespace {path} has not the address {address} of the pod")]
    Address {
        /// Path of the namespace.
        path: String,
        /// The address that is missing.
        address: IpAddr,
    },
    /// The pod's routing could not be changed.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// The kernel's maps or programs could not be changed.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

/// A pod's network namespace, and what the kernel was told about it.
#[derive(Debug)]
pub(super) struct Enrolment {
    pub(super) netns: Arc<Netns>,
    pub(super) addresses: Vec<IpAddr>,
    /// Values of the sysctls before the enrolment, for its undoing.
    pub(super) sysctls: Sysctls,
}

// === impl EnrolError ===

impl EnrolError {
    /// Returns whether the path no longer leads to a pod's namespace. Whatever else went wrong says
    /// nothing of the pod.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            // `setns` says of another file that it is invalid: the place where one was mounted.
            Self::Netns { cause, .. } => {
                matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput)
            }
            Self::OwnNetns { .. } => true,
            Self::Address { .. } | Self::Listen { .. } | Self::Routing(_) | Self::Programs(_) => {
                false
            }
        }
    }
}

// === impl Enrolment ===

impl Enrolment {
    /// Finds out what an enrolment would work on; changes nothing.
    pub(super) async fn inspect(path: &Path) -> Result<Self, EnrolError> {
        let netns = Netns::open(path)
            .map_err(|cause| EnrolError::Netns { path: path.display().to_string(), cause })?;
        if probe().and_then(|socket| netns_cookie(&socket)).is_ok_and(|own| own == netns.cookie()) {
            return Err(EnrolError::OwnNetns { path: path.display().to_string() });
        }
        let (addresses, sysctls) = {
            let routing = PodRouting::open(&netns)?;
            (routing.addresses().await?, routing.sysctls()?)
        };
        Ok(Self { netns: Arc::new(netns), addresses, sysctls })
    }

    /// Fails unless the namespace, found at `path`, has all addresses that the pod is to have.
    pub(super) fn ensure_addresses(
        &self,
        path: &Path,
        expected: &[IpAddr],
    ) -> Result<(), EnrolError> {
        match expected.iter().find(|address| !self.addresses.contains(address)) {
            None => Ok(()),
            Some(&address) => {
                Err(EnrolError::Address { path: path.display().to_string(), address })
            }
        }
    }

    /// Undoes an enrolment that failed half-way.
    pub(super) async fn undo(&self, programs: &mut Programs) {
        let released = programs.release(self.netns.cookie()).map_err(EnrolError::from);
        let restored = self.restore().await;
        for error in [released, restored].into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "could not undo a failed enrolment");
        }
    }

    /// Undoes the routing, after the last captured connection has ended.
    pub(super) async fn restore(&self) -> Result<(), EnrolError> {
        let routing = PodRouting::open(&self.netns)?;
        Ok(routing.restore(&self.addresses, &self.sysctls).await?)
    }

    /// Captures the pod, with the listening sockets of a predecessor if they are left. Its DNS
    /// queries go to its name servers until they are led elsewhere.
    pub(super) async fn enrol(
        &self,
        programs: &mut Programs,
        listeners: Option<PodListeners>,
        datagrams: DatagramRules,
    ) -> Result<(PodListeners, Option<ResolverSockets>), EnrolError> {
        let listeners = listeners.map_or_else(|| self.listen_all(), Ok)?;
        let with_names = datagrams.has(DatagramRules::RESOLVE);
        let resolver = with_names.then(|| self.open_resolver()).transpose()?;
        let netns = self.netns.cookie();
        let addresses = self.pod_addresses();
        let sockets = [
            (Listener::Outbound, listeners.outbound.as_fd()),
            (Listener::InboundHbone, listeners.inbound_hbone.as_fd()),
            (Listener::InboundPlaintext, listeners.inbound_plaintext.as_fd()),
        ];
        let pod = PodConfig { netns, addresses, reserved: [0; 4] };
        PodRouting::open(&self.netns)?.divert(&self.addresses, with_names).await?;
        programs.steer(self.netns.as_fd(), pod, sockets)?;
        let queries = resolver.as_ref().map(|resolver| resolver.queries.as_fd());
        programs.datagrams.begin(netns, datagrams, queries)?;
        programs.capture(netns, addresses)?;
        Ok((listeners, resolver))
    }

    fn listen_all(&self) -> Result<PodListeners, EnrolError> {
        Ok(PodListeners {
            outbound: self.listen(OUTBOUND_PORT)?,
            inbound_hbone: self.listen(HBONE_PORT)?,
            inbound_plaintext: self.listen(INBOUND_PLAINTEXT_PORT)?,
        })
    }

    fn listen(&self, port: u16) -> Result<std::net::TcpListener, EnrolError> {
        let socket = self.netns.within(|| transparent_listener(port)).and_then(|opened| opened);
        socket.map(Into::into).map_err(|cause| EnrolError::Listen { port, cause })
    }

    fn open_resolver(&self) -> Result<ResolverSockets, EnrolError> {
        let open = || {
            io::Result::Ok(ResolverSockets {
                queries: queries()?.into(),
                answers_v4: answers(Family::V4)?.into(),
                answers_v6: answers(Family::V6)?.into(),
            })
        };
        let opened = self.netns.within(open).and_then(|opened| opened);
        opened.map_err(|cause| EnrolError::Listen { port: RESOLVER_PORT, cause })
    }

    fn pod_addresses(&self) -> PodAddresses {
        let mut addresses = PodAddresses { v6: [0; 16], v4: [0; 4] };
        for address in &self.addresses {
            match address {
                IpAddr::V4(v4) => addresses.v4 = v4.octets(),
                IpAddr::V6(v6) => addresses.v6 = v6.octets(),
            }
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_pod_is_gone_only_if_its_path_says_so() {
        for (errno, gone) in [
            (Errno::ENOENT, true),
            (Errno::EINVAL, true),
            (Errno::EMFILE, false),
            (Errno::ENFILE, false),
            (Errno::EPERM, false),
            (Errno::EACCES, false),
        ] {
            let error = EnrolError::Netns { path: String::new(), cause: errno.into() };
            assert_eq!(error.is_gone(), gone, "{errno}");
            assert!(!EnrolError::Listen { port: 1, cause: errno.into() }.is_gone());
        }
        assert!(EnrolError::OwnNetns { path: String::new() }.is_gone());
    }
}
