//! A unix socket that carries messages with descriptors.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{Interest, unix::AsyncFd};

/// Longest message, in bytes. The largest has the state of [`MAX_PODS_PER_MESSAGE`] pods.
///
/// [`MAX_PODS_PER_MESSAGE`]: super::message::MAX_PODS_PER_MESSAGE
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// Most descriptors that one message carries; the kernel's own limit is 253.
pub const MAX_DESCRIPTORS: usize = 64;

/// One end of a socket between two halves. Messages keep their bounds and order.
#[derive(Debug)]
pub struct Channel(AsyncFd<OwnedFd>);

/// A message that has arrived.
#[derive(Debug)]
pub struct Received<M> {
    /// What it says.
    pub message: M,
    /// What it carries. Fewer than were sent if this process has no descriptors left.
    pub descriptors: Vec<OwnedFd>,
}

/// Why a message could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed; the other end may be gone.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The message cannot be written or read.
    #[error("a message is not in the protocol: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The message is longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
}

/// Returns the two ends of a socket for a [`Channel`].
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

// === impl Channel ===

impl Channel {
    /// Uses `socket`, a unix socket of type `SOCK_SEQPACKET`. Must be called in a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        AsyncFd::new(socket).map(Self)
    }

    /// Returns the socket.
    pub fn into_inner(self) -> OwnedFd {
        self.0.into_inner()
    }

    /// Sends a message with `descriptors`, of which the other end gets duplicates. Waits while the
    /// other end is slow; a cancelled call has sent all or nothing.
    pub async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_MESSAGE_BYTES || descriptors.len() > MAX_DESCRIPTORS {
            return Err(ChannelError::TooLong);
        }
        let send = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags).map_err(io::Error::from)
        };
        self.0.async_io(Interest::WRITABLE, send).await?;
        Ok(())
    }

    /// Returns the next message; none when the other end is gone. A cancelled call loses nothing.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<Option<Received<M>>, ChannelError> {
        let mut bytes = vec![0; MAX_MESSAGE_BYTES];
        let received = self.0.async_io(Interest::READABLE, |socket| receive(socket, &mut bytes));
        let (length, descriptors) = match received.await {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => other?,
        };
        if length == 0 {
            return Ok(None);
        }
        let bytes = bytes.get(..length).ok_or(ChannelError::TooLong)?;
        Ok(Some(Received { message: serde_json::from_slice(bytes)?, descriptors }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    // TRUNC: the true length of a message that is too long.
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::fd::AsFd};

    use super::*;

    fn channels() -> (Channel, Channel) {
        let (a, b) = pair().unwrap();
        (Channel::new(a).unwrap(), Channel::new(b).unwrap())
    }

    #[tokio::test]
    async fn a_message_arrives_with_its_descriptors() {
        let (a, b) = channels();
        let null = File::open("/dev/null").unwrap();
        let zero = File::open("/dev/zero").unwrap();
        a.send(&"two files", &[null.as_fd(), zero.as_fd()]).await.unwrap();
        let received: Received<String> = b.receive().await.unwrap().unwrap();
        assert_eq!(received.message, "two files");
        let mut files = received.descriptors.into_iter().map(File::from);
        assert_eq!(files.next().unwrap().read(&mut [1; 4]).unwrap(), 0);
        assert_eq!(files.next().unwrap().read(&mut [1; 4]).unwrap(), 4);
        assert!(files.next().is_none());
    }

    #[tokio::test]
    async fn the_end_of_the_other_side_is_not_an_error() {
        let (a, b) = channels();
        a.send(&1, &[]).await.unwrap();
        drop(a);
        assert_eq!(b.receive::<u8>().await.unwrap().unwrap().message, 1);
        assert!(b.receive::<u8>().await.unwrap().is_none());
        assert!(b.send(&1, &[]).await.is_err());
    }

    #[tokio::test]
    async fn messages_out_of_bounds_are_refused() {
        let (a, b) = channels();
        let long = "x".repeat(MAX_MESSAGE_BYTES);
        assert!(matches!(a.send(&long, &[]).await, Err(ChannelError::TooLong)));
        rustix::net::send(&a, &vec![b'1'; MAX_MESSAGE_BYTES + 1], SendFlags::empty()).unwrap();
        assert!(matches!(b.receive::<u8>().await, Err(ChannelError::TooLong)));
        rustix::net::send(&a, b"not json", SendFlags::empty()).unwrap();
        assert!(matches!(b.receive::<u8>().await, Err(ChannelError::Malformed(_))));
    }

    #[tokio::test]
    async fn a_sender_waits_for_a_slow_receiver() {
        let (a, b) = channels();
        let text = "x".repeat(MAX_MESSAGE_BYTES / 2);
        let send = async {
            for _ in 0..32 {
                a.send(&text, &[]).await.unwrap();
            }
        };
        let receive = async {
            for _ in 0..32 {
                assert_eq!(b.receive::<String>().await.unwrap().unwrap().message, text);
            }
        };
        tokio::join!(send, receive);
    }
}
