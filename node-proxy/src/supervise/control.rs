//! The control channel: how the supervisor gives its children the links that join them.
//!
//! A child finds its end on standard input. Each datagram brings one link, an end of a socket pair
//! whose other end a process of the other half gets. The child sends nothing. The end of the
//! channel says that the supervisor is gone; the child then ends too.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::socket::{SockType, getsockopt, sockopt};
use tracing::{error, warn};

use crate::sys::descriptors::{self, Channel, Datagram};

/// What the datagram says that brings a link.
const LINK: &[u8] = b"link";

/// A child's end of its control channel.
#[derive(Debug)]
pub struct Control {
    channel: Channel,
}

/// What the channel held.
enum Received {
    Link(OwnedFd),
    /// Not of this protocol.
    Unknown,
    End,
}

// === impl Control ===

impl Control {
    /// Takes the channel from standard input. Must be called in a runtime, before anything else
    /// reads standard input.
    pub fn from_stdin() -> io::Result<Self> {
        let stdin = io::stdin();
        if !matches!(getsockopt(&stdin, sockopt::SockType), Ok(SockType::SeqPacket)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "standard input is no control channel: start this with `fairlead-node run`",
            ));
        }
        Self::new(stdin.as_fd().try_clone_to_owned()?)
    }

    /// Uses `socket` as the child's end. Must be called in a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { channel: Channel::new(socket)? })
    }

    /// Waits for the next link to the other half; `None` says that the supervisor is gone and that
    /// this process is to end.
    ///
    /// A call that is dropped while it waits loses nothing.
    pub async fn next_link(&mut self) -> Option<OwnedFd> {
        loop {
            let mut data = [0; LINK.len()];
            let received = match self.channel.receive(&mut data).await {
                Ok(datagram) => read(&data, datagram),
                Err(error) => {
                    error!(%error, "lost the supervisor");
                    return None;
                }
            };
            match received {
                Received::Link(link) => return Some(link),
                Received::Unknown => warn!("ignored a message of the supervisor"),
                Received::End => return None,
            }
        }
    }
}

fn read(data: &[u8], mut datagram: Datagram) -> Received {
    if datagram.length == 0 && datagram.descriptors.is_empty() {
        return Received::End;
    }
    let known = data.get(..datagram.length) == Some(LINK) && !datagram.truncated;
    let link = datagram.descriptors.pop().filter(|_| datagram.descriptors.is_empty());
    link.filter(|_| known).map_or(Received::Unknown, Received::Link)
}

/// Gives `link` to the child at the other end of `channel`.
pub(super) fn give_link(channel: &OwnedFd, link: &OwnedFd) -> io::Result<()> {
    descriptors::send(channel, LINK, &[link.as_fd()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn links_arrive_in_order_until_the_supervisor_is_gone() {
        let (supervisor, child) = descriptors::pair().unwrap();
        let mut control = Control::new(child).unwrap();
        let (left, right) = descriptors::pair().unwrap();
        give_link(&supervisor, &left).unwrap();
        give_link(&supervisor, &right).unwrap();
        let first = control.next_link().await.unwrap();
        let second = control.next_link().await.unwrap();
        descriptors::send(&first, b"hello", &[]).unwrap();
        assert_eq!(descriptors::receive(&second, &mut [0; 8]).unwrap().length, 5);
        drop(supervisor);
        assert!(control.next_link().await.is_none());
    }

    #[tokio::test]
    async fn what_is_no_link_is_ignored() {
        let (supervisor, child) = descriptors::pair().unwrap();
        let mut control = Control::new(child).unwrap();
        let (link, _) = descriptors::pair().unwrap();
        let one = [link.as_fd()];
        for (data, attached) in [
            (&b"link"[..], &[][..]),
            (b"lin", &one[..]),
            (b"links", &one[..]),
            (b"link", &[link.as_fd(), link.as_fd()][..]),
        ] {
            descriptors::send(&supervisor, data, attached).unwrap();
        }
        give_link(&supervisor, &link).unwrap();
        assert!(control.next_link().await.is_some());
        drop(supervisor);
        assert!(control.next_link().await.is_none());
    }
}
