//! Datagrams that carry descriptors from one process to another (`SCM_RIGHTS`).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, sendmsg, shutdown,
        socketpair,
    },
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tokio::io::{Interest, unix::AsyncFd};

/// Most descriptors that the kernel lets one datagram carry (`SCM_MAX_FD`). With room for all of
/// them none is lost, whatever the sender does.
pub const MAX_DESCRIPTORS: usize = 253;

/// Descriptors that the kernel is asked about in one call. It may be more than the process may have
/// open (`RLIMIT_NOFILE`), which is never below this on a node.
const ASKED_AT_ONCE: usize = 256;

/// Time-out of `poll(2)`, in milliseconds.
const NO_WAIT: libc::c_int = 0;

/// What one datagram held.
#[derive(Debug)]
pub struct Datagram {
    /// Length of the data in bytes. With no data and no descriptor the sender is gone.
    pub length: usize,
    /// The descriptors, closed in programs that this process starts. Fewer than were sent if it has
    /// no room for more.
    pub descriptors: Vec<OwnedFd>,
    /// Whether data was cut off because the buffer is too small.
    pub truncated: bool,
}

/// A socket of a [`pair`], for use in a runtime.
#[derive(Debug)]
pub struct Channel(AsyncFd<OwnedFd>);

// === impl Channel ===

impl Channel {
    /// Uses `socket`. Must be called in a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an owned descriptor stays open, and the same, until it is dropped.
        let registered = unsafe { AsyncFd::register(socket) };
        registered.map(Self).map_err(Into::into)
    }

    /// Returns the socket.
    pub fn into_inner(self) -> OwnedFd {
        self.0.into_inner()
    }

    /// Waits for a datagram and receives it into `data`. Dropped while it waits, it loses nothing.
    pub async fn receive(&self, data: &mut [u8]) -> io::Result<Datagram> {
        self.0.async_io(Interest::READABLE, |socket| receive(socket, data)).await
    }

    /// Refuses what the other end sends from here on; what it has sent can still be received, and
    /// then the end. The kernel knows no moment between the two.
    pub fn close_for_reading(&self) -> io::Result<()> {
        Ok(shutdown(self.0.get_ref().as_raw_fd(), Shutdown::Read)?)
    }

    /// Sends `data` with `descriptors` as one datagram as soon as the queue has room.
    pub async fn send(&self, data: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, |socket| send(socket, data, descriptors)).await
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// Makes two sockets, joined with each other, that keep the bounds of datagrams and tell when the
/// other end is closed.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends `data` with `descriptors` as one datagram. Never waits: a full queue is `WouldBlock`.
pub fn send(socket: &impl AsFd, data: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<()>(socket, &[IoSlice::new(data)], control, flags, None)?;
    Ok(())
}

/// Receives one datagram into `data`. Never waits: an empty queue is `WouldBlock`.
pub fn receive(socket: &impl AsFd, data: &mut [u8]) -> io::Result<Datagram> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(data)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut parts, &mut control, flags)?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    let truncated = message.flags.contains(ReturnFlags::TRUNC);
    Ok(Datagram { length: message.bytes, descriptors, truncated })
}

/// Keeps what this process has open, beside its standard streams, from the programs that it starts:
/// who started it may have left descriptors open that are nobody else's business.
pub fn close_in_programs() -> io::Result<()> {
    let (first, last, flags) = (3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: the call takes no pointer, and closes nothing in this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Counts the descriptors of this process that are open, among those with these numbers. The kernel
/// says it of many in one call.
pub fn count_open(numbers: Range<RawFd>) -> io::Result<usize> {
    let numbers: Vec<RawFd> = numbers.collect();
    let mut open = 0;
    for numbers in numbers.chunks(ASKED_AT_ONCE) {
        let asked = numbers.iter().map(|fd| libc::pollfd { fd: *fd, events: 0, revents: 0 });
        let mut asked: Vec<_> = asked.collect();
        // SAFETY: the array is valid for its length; the call changes no descriptor, and says of
        // those that are not open that they are not.
        let result =
            unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, NO_WAIT) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        open += asked.iter().filter(|asked| asked.revents & libc::POLLNVAL == 0).count();
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
    };

    use super::*;

    #[test]
    fn a_datagram_carries_data_and_working_descriptors() {
        let (left, right) = pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&left, b"take", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut data = [0; 8];
        let mut datagram = receive(&right, &mut data).unwrap();
        assert_eq!((&data[..datagram.length], datagram.truncated), (&b"take"[..], false));
        let mut writer = File::from(datagram.descriptors.pop().unwrap());
        assert!(datagram.descriptors.is_empty());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn as_many_descriptors_as_the_kernel_allows_arrive() {
        let (left, right) = pair().unwrap();
        let all = [left.as_fd(); MAX_DESCRIPTORS];
        send(&left, b"x", &all).unwrap();
        assert_eq!(receive(&right, &mut [0; 1]).unwrap().descriptors.len(), MAX_DESCRIPTORS);
    }

    #[test]
    fn open_descriptors_are_counted_and_closed_ones_are_not() {
        // Other tests open and close, too, in this process, and get the lowest numbers.
        const FAR: RawFd = 700;
        assert!(count_open(0..FAR).unwrap() >= 3);
        let (left, _right) = pair().unwrap();
        let at_800 = rustix::io::fcntl_dupfd_cloexec(&left, 800).unwrap();
        let at_900 = rustix::io::fcntl_dupfd_cloexec(&left, 900).unwrap();
        let above = |limit| count_open(FAR..limit).unwrap();
        assert_eq!((above(800), above(801), above(1000)), (0, 1, 2));
        drop(at_800);
        assert_eq!(above(1000), 1);
        drop(at_900);
        assert_eq!(above(1000), 0);
    }

    #[test]
    fn nothing_waits_and_the_end_is_seen() {
        let (left, right) = pair().unwrap();
        let error = receive(&right, &mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        send(&left, b"longer", &[]).unwrap();
        assert!(receive(&right, &mut [0; 1]).unwrap().truncated);
        drop(left);
        let end = receive(&right, &mut [0; 1]).unwrap();
        assert_eq!((end.length, end.descriptors.len()), (0, 0));
        assert_eq!(send(&right, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
