//! A unix socket that carries messages with descriptors.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use serde::{Serialize, de::DeserializeOwned};

pub use fairlead_sys::descriptors::pair;
use fairlead_sys::descriptors::{self, Datagram};

/// Longest message, in bytes. The largest has the state of [`MAX_PODS_PER_MESSAGE`] pods.
///
/// [`MAX_PODS_PER_MESSAGE`]: super::message::MAX_PODS_PER_MESSAGE
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// Most descriptors that one message carries; the kernel's own limit is 253.
pub const MAX_DESCRIPTORS: usize = 64;

/// One end of a socket between two halves. Messages keep their bounds and order.
#[derive(Debug)]
pub struct Channel(descriptors::Channel);

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

// === impl Channel ===

impl Channel {
    /// Uses `socket`, a unix socket of type `SOCK_SEQPACKET`. Must be called in a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        descriptors::Channel::new(socket).map(Self)
    }

    /// Returns the socket.
    pub fn into_inner(self) -> OwnedFd {
        self.0.into_inner()
    }

    /// Sends a message with `descriptors`, of which the other end gets duplicates. Waits while the
    /// other end is slow; a cancelled call has sent all or nothing.
    ///
    /// What is sent to an end that is gone is lost: that it is gone shows in one place,
    /// [`Channel::receive`].
    pub async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        match self.send_to_present(message, descriptors).await {
            Err(ChannelError::Io(error)) if is_gone(&error) => Ok(()),
            sent => sent,
        }
    }

    /// Sends a message like [`Channel::send`], but fails if the other end is gone.
    pub async fn send_to_present(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_MESSAGE_BYTES || descriptors.len() > MAX_DESCRIPTORS {
            return Err(ChannelError::TooLong);
        }
        Ok(self.0.send(&bytes, descriptors).await?)
    }

    /// Refuses what the other end sends from here on, for which [`Channel::send_to_present`] fails
    /// there; what it has sent can still be received.
    pub fn close_for_receiving(&self) -> io::Result<()> {
        self.0.close_for_reading()
    }

    /// Returns the next message; none when the other end is gone. A cancelled call loses nothing.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<Option<Received<M>>, ChannelError> {
        let mut bytes = vec![0; MAX_MESSAGE_BYTES];
        let received = self.0.receive(&mut bytes).await;
        let Datagram { length, descriptors, truncated } = match received {
            Err(error) if is_gone(&error) => return Ok(None),
            other => other?,
        };
        if length == 0 {
            return Ok(None);
        }
        let bytes = bytes.get(..length).filter(|_| !truncated).ok_or(ChannelError::TooLong)?;
        Ok(Some(Received { message: serde_json::from_slice(bytes)?, descriptors }))
    }
}

/// Returns whether an error says that the other end is gone: with everything read there, or not.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
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
        b.send(&1, &[]).await.unwrap();
        assert!(b.send_to_present(&1, &[]).await.is_err());
    }

    #[tokio::test]
    async fn an_end_that_dies_with_messages_unread_is_gone_like_any_other() {
        let (a, b) = channels();
        a.send(&1, &[]).await.unwrap();
        b.send(&2, &[]).await.unwrap();
        drop(a);
        b.send(&3, &[]).await.unwrap();
        b.send(&4, &[]).await.unwrap();
        while let Some(received) = b.receive::<u8>().await.unwrap() {
            assert_eq!(received.message, 1);
        }
    }

    #[tokio::test]
    async fn messages_out_of_bounds_are_refused() {
        let (a, b) = channels();
        let long = "x".repeat(MAX_MESSAGE_BYTES);
        assert!(matches!(a.send(&long, &[]).await, Err(ChannelError::TooLong)));
        a.0.send(&vec![b'1'; MAX_MESSAGE_BYTES + 1], &[]).await.unwrap();
        assert!(matches!(b.receive::<u8>().await, Err(ChannelError::TooLong)));
        a.0.send(b"not json", &[]).await.unwrap();
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
