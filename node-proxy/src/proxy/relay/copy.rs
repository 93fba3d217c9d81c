//! Reading and writing sockets through user space.

use std::{future::poll_fn, io, net::Shutdown};

use bytes::{Buf, BytesMut};
use fairlead_sys::socket::at_urgent_byte;
use fairlead_tunnel::adaptive_read::{ReadSize, poll_read};
use socket2::SockRef;
use tokio::net::TcpStream;

/// Reads what the socket has; empty at the end of the stream. Holds no buffer while it waits.
pub(super) async fn read(socket: &TcpStream, size: &mut ReadSize) -> io::Result<BytesMut> {
    let mut buffer = BytesMut::new();
    // The kernel hands out an urgent byte by itself.
    poll_fn(|cx| poll_read(socket, cx, size, &mut buffer, at_urgent_byte)).await?;
    Ok(buffer)
}

/// Writes all of `data`, and tells `moved` of what the socket has taken, also where the rest fails.
pub(super) async fn write(
    socket: &TcpStream,
    mut data: impl Buf,
    moved: &impl Fn(u64),
) -> io::Result<()> {
    while data.has_remaining() {
        match socket.try_write(data.chunk()) {
            Ok(written) => {
                moved(written as u64);
                data.advance(written);
            }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;
    use socket2::SockRef;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    /// More than the buffers of two sockets hold.
    const TOO_MUCH: usize = 64 << 20;

    #[tokio::test]
    async fn a_write_that_breaks_half_way_counts_what_the_socket_had_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (sender, (mut reader, _)) = (sender.unwrap(), accepted.unwrap());
        let moved = Cell::new(0);
        let count = |n| moved.set(moved.get() + n);
        let data = Bytes::from(vec![7; TOO_MUCH]);
        let break_off = async {
            reader.read_exact(&mut [0; 1024]).await.unwrap();
            SockRef::from(&reader).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(reader);
        };
        let (written, ()) = tokio::join!(write(&sender, data, &count), break_off);
        written.unwrap_err();
        assert!((1024..TOO_MUCH as u64).contains(&moved.get()), "{}", moved.get());
    }
}
