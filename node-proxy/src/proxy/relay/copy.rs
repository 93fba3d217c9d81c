//! Reading and writing sockets through user space.

use std::{future::poll_fn, io, net::Shutdown};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{
    adaptive_read::{ReadSize, poll_read},
    sys::socket::at_urgent_byte,
};

/// Reads what the socket has; empty at the end of the stream. Holds no buffer while it waits.
pub(super) async fn read(socket: &TcpStream, size: &mut ReadSize) -> io::Result<BytesMut> {
    let mut buffer = BytesMut::new();
    // The kernel hands out an urgent byte by itself.
    poll_fn(|cx| poll_read(socket, cx, size, &mut buffer, at_urgent_byte)).await?;
    Ok(buffer)
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
