//! Reads of sockets that fit their traffic: few calls for bulk, little memory for small messages,
//! none while nothing comes.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, BytesMut};
use tokio::{io::Interest, net::TcpStream};

/// First read, in bytes: one interactive message.
const SMALLEST_READ_BYTES: usize = 8 << 10;

/// Largest read, in bytes: past it the calls no longer show in a profile.
const LARGEST_READ_BYTES: usize = 256 << 10;

/// Size of the next read: grows while reads fill their buffer, so that bulk transfers make few
/// system calls and interactive connections hold little memory.
#[derive(Debug)]
pub struct ReadSize(usize);

// === impl ReadSize ===

impl ReadSize {
    fn adapt(&mut self, read: usize) {
        if read == self.0 {
            self.0 = (self.0 * 4).min(LARGEST_READ_BYTES);
        } else if read < self.0 / 8 {
            self.0 = (self.0 / 2).max(SMALLEST_READ_BYTES);
        }
    }
}

impl Default for ReadSize {
    fn default() -> Self {
        Self(SMALLEST_READ_BYTES)
    }
}

/// Appends what the socket has to `buffer`; 0 means the end of the stream.
///
/// Takes memory only once there is something to read. `stopped_early` tells whether the socket may
/// hold more after a read that did not fill its buffer.
pub fn poll_read(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    size: &mut ReadSize,
    buffer: &mut BytesMut,
    stopped_early: impl Fn(&TcpStream) -> bool,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_read_ready(cx))?;
        buffer.reserve(size.0);
        match socket.try_read_buf(&mut buffer.limit(size.0)) {
            Ok(read) => {
                if 0 < read && read < size.0 && !stopped_early(socket) {
                    expect_no_more(socket);
                }
                size.adapt(read);
                return Poll::Ready(Ok(read));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if buffer.is_empty() {
                    *buffer = BytesMut::new();
                }
            }
            Err(e) => return Poll::Ready(Err(e)),
        }
    }
}

/// Makes the next read wait for news of the socket: a read that did not fill its buffer has emptied
/// the socket, and trying again would cost a system call to learn it.
///
/// Loses no news because one thread runs both the task and the driver: what came since the read is
/// still with the kernel. An end or a reset that the driver has seen stays seen.
fn expect_no_more(socket: &TcpStream) {
    let _ = socket.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_bulk_and_shrink_with_small_messages() {
        let mut size = ReadSize::default();
        for grown in [32 << 10, 128 << 10, LARGEST_READ_BYTES, LARGEST_READ_BYTES] {
            size.adapt(size.0);
            assert_eq!(size.0, grown);
        }
        size.adapt(size.0 / 8);
        assert_eq!(size.0, LARGEST_READ_BYTES, "an eighth is still worth the buffer");
        for _ in 0..10 {
            size.adapt(1);
        }
        assert_eq!(size.0, SMALLEST_READ_BYTES);
    }
}
