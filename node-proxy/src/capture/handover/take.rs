//! The successor's part.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use tokio::time::timeout;

use super::{HANDOVER_TIMEOUT, HandoverError, socket_path};
use crate::link::{
    VERSION,
    channel::{Channel, Received},
    handover::{ToPredecessor, ToSuccessor},
    listeners::{EndpointListeners, PodListeners},
    message::PodId,
    understands,
};

/// A capture process that has handed everything over. It goes on as before unless told to end.
#[derive(Debug)]
pub struct Predecessor(Channel);

/// What a predecessor has handed over.
#[derive(Debug)]
pub struct Inheritance {
    /// The predecessor.
    pub predecessor: Predecessor,
    /// Open file whose lock says who owns the BPF directory.
    pub bpf_lock: File,
    /// Open file whose lock says who owns the run directory.
    pub run_lock: File,
    /// Listening socket of the API.
    pub api: UnixListener,
    /// Listening sockets for operators.
    pub endpoints: EndpointListeners,
    /// Listening sockets of pods.
    pub pods: HashMap<PodId, PodListeners>,
    /// Links to proxies, the oldest first.
    pub proxies: Vec<OwnedFd>,
}

/// What has arrived so far.
#[derive(Default)]
struct Parts {
    locks: Option<[OwnedFd; 2]>,
    api: Option<OwnedFd>,
    endpoints: Option<EndpointListeners>,
    pods: HashMap<PodId, PodListeners>,
    proxies: Vec<OwnedFd>,
}

/// Asks the process that serves `run_dir` to hand everything over; none if there is none.
pub async fn take_over(run_dir: &Path) -> Result<Option<Inheritance>, HandoverError> {
    let path = socket_path(run_dir);
    let connected = connect_to(&path).map_err(|cause| HandoverError::Socket { path, cause })?;
    let Some(predecessor) = connected else { return Ok(None) };
    timeout(HANDOVER_TIMEOUT, receive(predecessor))
        .await
        .map_err(|_| HandoverError::Timeout)?
        .map(Some)
}

/// Returns none if nobody listens.
fn connect_to(path: &Path) -> io::Result<Option<Channel>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => Channel::new(socket).map(Some),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn receive(predecessor: Channel) -> Result<Inheritance, HandoverError> {
    predecessor.send(&ToPredecessor::TakeOver { version: VERSION }, &[]).await?;
    let mut parts = Parts::default();
    loop {
        let received = predecessor.receive::<ToSuccessor>().await?.ok_or(HandoverError::Gone)?;
        if parts.add(received)? {
            return parts.complete(predecessor).ok_or(HandoverError::Incomplete);
        }
    }
}

// === impl Predecessor ===

impl Predecessor {
    /// The predecessor at the other end of `channel`.
    pub(super) fn at(channel: Channel) -> Self {
        Self(channel)
    }

    /// Tells the predecessor to end; everything is this process's own from here on. Fails if the
    /// predecessor waits no longer: then it goes on, and nothing is this process's own.
    pub async fn end(self) -> Result<(), HandoverError> {
        Ok(self.0.send_to_present(&ToPredecessor::Taken, &[]).await?)
    }
}

// === impl Parts ===

impl Parts {
    /// Returns whether that was the last part.
    fn add(&mut self, received: Received<ToSuccessor>) -> Result<bool, HandoverError> {
        let Received { message, mut descriptors } = received;
        match message {
            ToSuccessor::Hello { version } if !understands(version) => {
                return Err(HandoverError::Version(version));
            }
            ToSuccessor::Locks => self.locks = descriptors.try_into().ok(),
            ToSuccessor::Api => self.api = descriptors.pop(),
            ToSuccessor::Endpoints => {
                self.endpoints = EndpointListeners::from_descriptors(descriptors);
            }
            ToSuccessor::Pod { pod } => {
                let listeners = PodListeners::from_descriptors(descriptors);
                self.pods.insert(pod, listeners.ok_or(HandoverError::Incomplete)?);
            }
            ToSuccessor::Proxy => {
                self.proxies.push(descriptors.pop().ok_or(HandoverError::Incomplete)?);
            }
            ToSuccessor::End => return Ok(true),
            ToSuccessor::Hello { .. } | ToSuccessor::Unknown => {}
        }
        Ok(false)
    }

    fn complete(self, predecessor: Channel) -> Option<Inheritance> {
        let [bpf_lock, run_lock] = self.locks?;
        Some(Inheritance {
            bpf_lock: bpf_lock.into(),
            run_lock: run_lock.into(),
            api: self.api?.into(),
            endpoints: self.endpoints?,
            pods: self.pods,
            proxies: self.proxies,
            predecessor: Predecessor::at(predecessor),
        })
    }
}
