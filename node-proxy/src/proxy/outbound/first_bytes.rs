//! What an application writes before its connection is known to work.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::pending,
    io,
    os::fd::AsRawFd as _,
};

use bytes::Bytes;
use h2::SendStream;
use nix::sys::socket::{MsgFlags, recv};
use tokio::{io::Interest, net::TcpStream};

/// Bytes sent ahead of the peer's answer: whole requests of interactive protocols, and as much as
/// every HTTP/2 peer takes from a new stream without a word (RFC 9113 section 6.9.2).
const MAX_FIRST_BYTES: usize = (64 << 10) - 1;

thread_local! {
    /// Where bytes are looked at; only ever used within a call.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_FIRST_BYTES].into());
}

/// The application's first bytes. They are sent ahead of the peer's answer and stay in the socket
/// until a peer has accepted the connection, so that after a refusal another one can have them.
#[derive(Debug)]
pub(in crate::proxy) struct FirstBytes<'a> {
    socket: &'a TcpStream,
    sent: Cell<usize>,
}

// === impl FirstBytes ===

impl<'a> FirstBytes<'a> {
    pub(in crate::proxy) fn of(socket: &'a TcpStream) -> Self {
        Self { socket, sent: Cell::new(0) }
    }

    /// Begins anew, with another peer.
    pub(in crate::proxy) fn start(&self) {
        self.sent.set(0);
    }

    /// Returns whether any were sent since the last start.
    pub(in crate::proxy) fn are_sent(&self) -> bool {
        self.sent.get() > 0
    }

    /// Sends what the application has written when it first does; an end is left to the relay, as is
    /// what it writes later. The socket stays readable, for another peer's turn.
    pub(in crate::proxy) async fn send(&self, stream: &mut SendStream<Bytes>) -> Infallible {
        // A socket that broke is noticed by others.
        if let Ok(first) = self.socket.async_io(Interest::READABLE, || self.peek()).await
            && !first.is_empty()
        {
            self.sent.set(first.len());
            // If it fails, the answer or its absence tells why.
            let _ = stream.send_data(first, false);
        }
        pending().await
    }

    /// Takes out of the socket what was sent, once it is accepted; returns how much that was.
    pub(in crate::proxy) fn take(self) -> io::Result<usize> {
        let sent = self.sent.get();
        let mut left = sent;
        while left > 0 {
            // With this flag nothing is copied.
            let taken = SCRATCH
                .with_borrow_mut(|scratch| self.receive(&mut scratch[..left], MsgFlags::MSG_TRUNC));
            left = match taken? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                taken => left.saturating_sub(taken),
            };
        }
        Ok(sent)
    }

    fn peek(&self) -> io::Result<Bytes> {
        SCRATCH.with_borrow_mut(|scratch| {
            let seen = self.receive(scratch, MsgFlags::MSG_PEEK)?;
            Ok(Bytes::copy_from_slice(&scratch[..seen]))
        })
    }

    fn receive(&self, into: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
        Ok(recv(self.socket.as_raw_fd(), into, flags)?)
    }
}
