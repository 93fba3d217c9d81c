//! Reading and writing sockets through user space.

use std::{io, net::Shutdown};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;

/// First read of a direction, in bytes: one interactive message.
const SMALLEST_READ_BYTES: usize = 8 << 10;

/// Largest read, in bytes: past it the calls no longer show in a profile.
const LARGEST_READ_BYTES: usize = 256 << 10;

/// Size of the next read: grows while reads fill their buffer, so that bulk transfers make few
/// system calls and interactive connections hold little memory.
#[derive(Debug)]
pub(super) struct ReadSize(usize);

// === impl ReadSize ===

impl ReadSize {
    pub(super) fn new() -> Self {
        Self(SMALLEST_READ_BYTES)
    }

    fn adapt(&mut self, read: usize) {
        if read == self.0 {
            self.0 = (self.0 * 4).min(LARGEST_READ_BYTES);
        } else if read < self.0 / 8 {
            self.0 = (self.0 / 2).max(SMALLEST_READ_BYTES);
        }
    }
}

/// Reads what the socket has; empty at the end of the stream. Holds no buffer while it waits.
pub(super) async fn read(socket: &TcpStream, size: &mut ReadSize) -> io::Result<BytesMut> {
    loop {
        socket.readable().await?;
        let mut buffer = BytesMut::with_capacity(size.0);
        let mut limited = bytes::BufMut::limit(&mut buffer, size.0);
        match socket.try_read_buf(&mut limited) {
            Ok(read) => {
                size.adapt(read);
                return Ok(buffer);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes all of `data`.
pub(super) async fn write(socket: &TcpStream, mut data: impl Buf) -> io::Result<()> {
    while data.has_remaining() {
        match socket.try_write(data.chunk()) {
            Ok(written) => data.advance(written),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Sends the end of the stream.
pub(super) fn finish(socket: &TcpStream) -> io::Result<()> {
    match SockRef::from(socket).shutdown(Shutdown::Write) {
        // The peer was faster with its reset or close; reading tells which.
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}
