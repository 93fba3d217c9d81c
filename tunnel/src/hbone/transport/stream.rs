//! The socket of an established TLS connection. It holds no buffer while nothing moves.

use std::{
    io,
    net::Shutdown,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use rustls::Error;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    handshake::{Established, Received, invalid},
    record::Frame,
    session::Session,
    wire::{Watched, Wire},
};
use crate::{
    adaptive_read::{ReadSize, poll_read},
    limits::{TLS_UNSENT_BYTES, TLS_WRITE_BYTES},
};

/// The byte stream of a tunnel.
pub struct Stream {
    socket: Watched,
    session: Session,
    read_size: ReadSize,
    /// Records to open.
    records: BytesMut,
    /// Content that had no room where it was asked for.
    content: BytesMut,
    /// Records to send.
    unsent: BytesMut,
    /// What the peer did wrong: nothing after it is read.
    failure: Option<Error>,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(socket: TcpStream, established: Established) -> Result<Self, Error> {
        let Established { secrets, keys, suite, received, .. } = established;
        let Received { records, content, end } = received;
        let session = Session::new(secrets, keys, suite, end)?;
        let mut stream = Self {
            socket: Watched::new(socket),
            session,
            read_size: ReadSize::default(),
            records,
            content,
            unsent: BytesMut::new(),
            failure: None,
        };
        free(&mut stream.records);
        Ok(stream)
    }

    /// Returns what the kernel may be asked about the socket.
    pub fn wire(&self) -> Rc<Wire> {
        self.socket.wire.clone()
    }

    /// Makes the key last for fewer records than it could.
    #[cfg(test)]
    pub(super) fn limit_key(&mut self, records: u64) {
        self.session.key_limit = records;
    }

    /// Queues one record of handshake messages, whatever they are.
    #[cfg(test)]
    pub(super) fn send_messages(&mut self, messages: &[u8]) {
        self.session.send_messages(messages, &mut self.unsent).unwrap();
    }

    /// Returns how much memory the buffers take, in bytes.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.records.capacity() + self.content.capacity() + self.unsent.capacity()
    }

    /// Opens as many of the received records as `buffer` has room for.
    fn open(&mut self, buffer: &mut ReadBuf<'_>) -> Result<(), Error> {
        while buffer.remaining() > 0
            && self.content.is_empty()
            && !self.session.peer_closed()
            && let Some(frame) = Frame::first(&self.records)?
        {
            let record = &self.records[..frame.length];
            if frame.opened <= buffer.remaining() {
                let length =
                    self.session.open(record, buffer.initialize_unfilled_to(frame.opened))?;
                buffer.advance(length);
            } else {
                self.content.resize(frame.opened, 0);
                let length = self.session.open(record, &mut self.content)?;
                self.content.truncate(length);
                self.take(buffer);
            }
            self.records.advance(frame.length);
        }
        free(&mut self.records);
        Ok(())
    }

    /// Moves content that had no room to `buffer`.
    fn take(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.content.len().min(buffer.remaining());
        buffer.put_slice(&self.content[..length]);
        self.content.advance(length);
        free(&mut self.content);
    }

    /// Reads no more, and tells the peer what it did wrong, as far as the socket takes it now.
    fn fail(&mut self, cx: &mut Context<'_>, error: Error) {
        // A record that could not be opened has left there what nobody vouches for.
        self.content = BytesMut::new();
        self.records = BytesMut::new();
        if self.session.complain(&error, &mut self.unsent).is_ok() {
            let _ = self.poll_send(cx);
        }
        self.failure = Some(error);
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(poll_write(&self.socket.socket, cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        free(&mut self.unsent);
        Poll::Ready(Ok(()))
    }
}

/// As the socket's own `poll_write`, which wants it for itself alone.
fn poll_write(socket: &TcpStream, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_write(data) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(sent) if sent < data.len() => {
                // Full: trying once more would cost a system call to learn it.
                let full = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = socket.try_io(Interest::WRITABLE, full);
                return Poll::Ready(Ok(sent));
            }
            written => return Poll::Ready(written),
        }
    }
}

/// Gives the memory of a buffer back that has been used up.
fn free(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(failure) = &this.failure {
            return Poll::Ready(Err(invalid(failure.clone())));
        }
        let before = buffer.filled().len();
        this.take(buffer);
        loop {
            let opened = this.open(buffer);
            let progress = buffer.filled().len() > before;
            match opened {
                Err(error) => {
                    this.fail(cx, error.clone());
                    if !progress {
                        return Poll::Ready(Err(invalid(error)));
                    }
                }
                Ok(()) if progress || buffer.remaining() == 0 || this.session.peer_closed() => {}
                Ok(()) => {
                    let (size, records) = (&mut this.read_size, &mut this.records);
                    let read = poll_read(&this.socket.socket, cx, size, records, |_| false);
                    if ready!(read)? == 0 {
                        // An end without a farewell may be an attacker's.
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    continue;
                }
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.session.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.unsent.len() >= TLS_UNSENT_BYTES {
            ready!(this.poll_send(cx))?;
        }
        let data = &data[..data.len().min(TLS_WRITE_BYTES)];
        this.session.seal(data, &mut this.unsent).map_err(invalid)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.session.close(&mut this.unsent).map_err(invalid)?;
        ready!(this.poll_send(cx))?;
        match SockRef::from(&*this.socket.socket).shutdown(Shutdown::Write) {
            // A connection that the peer has ended needs no end of ours.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}
