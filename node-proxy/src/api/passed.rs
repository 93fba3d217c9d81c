//! Connections without a name: the process at one end of a link makes them and passes their other
//! ends.
//!
//! The agent may not open unix sockets by name, since under their names the node's own services
//! listen. And who has an end of the link is known without asking.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    sync::Arc,
};

use fairlead_component::http::Listener;
use fairlead_sys::descriptors::{Channel, Datagram};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use tokio::{
    net::UnixStream,
    sync::{Mutex, mpsc, watch},
};

/// What the datagram says that brings a connection.
const CONNECTION: &[u8] = b"connection";

/// Connections that come over links, one link after the other.
#[derive(Debug)]
pub struct PassedConnections {
    links: Mutex<Links>,
}

#[derive(Debug)]
struct Links {
    next: mpsc::Receiver<OwnedFd>,
    current: Option<Channel>,
}

/// Makes connections and passes their other ends over the latest link.
#[derive(Clone, Debug)]
pub(super) struct Passing(watch::Receiver<Option<Arc<Channel>>>);

// === impl PassedConnections ===

impl PassedConnections {
    /// Takes connections over the latest of `links`.
    pub fn new(links: mpsc::Receiver<OwnedFd>) -> Self {
        Self { links: Mutex::new(Links { next: links, current: None }) }
    }
}

impl Listener for PassedConnections {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        let mut links = self.links.lock().await;
        loop {
            let Links { next, current } = &mut *links;
            let mut data = [0; CONNECTION.len()];
            tokio::select! {
                link = next.recv() => match link {
                    Some(link) => *current = Some(Channel::new(link)?),
                    // The supervisor is gone, and this process is about to end.
                    None => std::future::pending().await,
                },
                received = receive(current.as_ref(), &mut data) => match received {
                    Ok(datagram) if datagram.length == 0 => *current = None,
                    Ok(datagram) => return connection(&data, datagram),
                    Err(error) => {
                        *current = None;
                        return Err(error);
                    }
                },
            }
        }
    }
}

async fn receive(link: Option<&Channel>, data: &mut [u8]) -> io::Result<Datagram> {
    match link {
        Some(link) => link.receive(data).await,
        None => std::future::pending().await,
    }
}

/// Takes the connection out of a datagram. The sender has no privilege: what it sends may be
/// anything.
fn connection(data: &[u8], mut datagram: Datagram) -> io::Result<UnixStream> {
    let known = data.get(..datagram.length) == Some(CONNECTION) && !datagram.truncated;
    let socket = datagram.descriptors.pop().filter(|_| known && datagram.descriptors.is_empty());
    let is_stream =
        |fd: &OwnedFd| getsockopt(&fd.as_fd(), sockopt::SockType) == Ok(SockType::Stream);
    let socket = socket.filter(is_stream).ok_or(io::ErrorKind::InvalidData)?;
    let stream = StdUnixStream::from(socket);
    // Fails for a stream of another family.
    stream.local_addr()?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

// === impl Passing ===

impl Passing {
    pub(super) fn over(links: watch::Receiver<Option<Arc<Channel>>>) -> Self {
        Self(links)
    }

    /// Waits for a link, and connects over it.
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        let link = {
            let mut links = self.0.clone();
            let link = links.wait_for(Option::is_some).await;
            link.ok().and_then(|link| link.clone()).ok_or(io::ErrorKind::BrokenPipe)?
        };
        let (own, other) = StdUnixStream::pair()?;
        own.set_nonblocking(true)?;
        link.send(CONNECTION, &[other.as_fd()]).await?;
        UnixStream::from_std(own)
    }
}
