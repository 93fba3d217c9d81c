//! Socket options and the three kinds of sockets that live in a pod's namespace.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use fairlead_ebpf::{CAPTURE_MARK, NetnsCookie};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that the kernel holds for a listener before they are accepted. The kernel lowers it
/// to `net.core.somaxconn` (4096 by default).
pub const LISTEN_BACKLOG: i32 = 4096;

/// Idle time before the first TCP keepalive probe, and between probes (as ztunnel).
pub const TCP_KEEPALIVE: Duration = Duration::from_mins(3);

/// Unanswered TCP keepalive probes that end a connection (as ztunnel).
pub const TCP_KEEPALIVE_RETRIES: u32 = 9;

/// Source ports of connections to the application when the client's own port is taken: below the
/// range from which clients choose theirs, so that the two never meet in one connection table.
const SOURCE_PORTS: (u16, u16) = (1024, 32767);

/// `SO_NETNS_COOKIE` of `asm-generic/socket.h` (Linux 5.14).
const SO_NETNS_COOKIE: i32 = 71;

/// `SIOCATMARK` of `asm-generic/sockios.h`.
pub const SIOCATMARK: libc::Ioctl = 0x8905;

/// `IP_LOCAL_PORT_RANGE` of `linux/in.h` (Linux 6.3).
pub const IP_LOCAL_PORT_RANGE: i32 = 51;

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the packets of a connection have fared, as the kernel has measured it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStats {
    /// Smoothed time from sending a segment to its acknowledgement; none if none was acknowledged.
    pub round_trip: Option<Duration>,
    /// Segments that were sent again since the connection was made.
    pub retransmits: u32,
}

// === impl Family ===

impl Family {
    pub(super) fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 => Domain::IPV6,
        }
    }
}

/// Opens a socket for questions about the namespace the thread is in.
pub fn probe() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM, None)
}

/// Returns the cookie of the namespace that `socket` belongs to.
pub fn netns_cookie(socket: &impl AsFd) -> io::Result<NetnsCookie> {
    Ok(NetnsCookie(get(socket, SO_NETNS_COOKIE)?))
}

/// Returns the kernel's unique number for `socket`.
pub fn cookie(socket: &impl AsFd) -> io::Result<u64> {
    get(socket, libc::SO_COOKIE)
}

/// Returns whether `socket` accepts TCP connections on `port` in the namespace.
pub fn listens(socket: &impl AsFd, netns: NetnsCookie, port: u16) -> io::Result<bool> {
    let known = SockRef::from(socket);
    Ok(known.is_listener()?
        && known.protocol()? == Some(Protocol::TCP)
        && known.local_addr()?.as_socket().is_some_and(|address| address.port() == port)
        && netns_cookie(socket)? == netns)
}

/// Opens a socket that accepts connections to any address, of both families.
pub fn transparent_listener(port: u16) -> io::Result<Socket> {
    let socket = stream(Domain::IPV6)?;
    socket.set_only_v6(false)?;
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)?;
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    socket.set_reuse_address(true)?;
    // Inherited by every accepted connection: set once here, no system call per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    keepalive(&socket)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket)
}

/// Opens a socket for a connection that leaves the pod.
pub fn outbound(family: Family) -> io::Result<Socket> {
    let socket = stream(family.domain())?;
    socket.set_tcp_nodelay(true)?;
    // An urgent byte is otherwise left out of what is read, and lost.
    socket.set_out_of_band_inline(true)?;
    keepalive(&socket)?;
    Ok(socket)
}

/// Opens a socket for a connection to the application, to be bound by [`bind_delivery`].
pub fn delivery(family: Family) -> io::Result<Socket> {
    let socket = outbound(family)?;
    setsockopt(&socket, sockopt::Mark, &CAPTURE_MARK)?;
    // Without the device the kernel reports the SYN as arriving on eth0, and it would be steered
    // back to the proxy, for ever.
    socket.bind_device(Some(b"lo"))?;
    match family {
        Family::V4 => setsockopt(&socket, sockopt::IpTransparent, &true)?,
        Family::V6 => set(&socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)?,
    }
    Ok(socket)
}

/// Binds a socket of [`delivery`] to the address of `client`, in whose name it will connect.
///
/// With port 0 the kernel chooses one when the socket connects. Needs no privilege, but for ports
/// below `net.ipv4.ip_unprivileged_port_start`.
pub fn bind_delivery(socket: &Socket, client: SocketAddr) -> io::Result<()> {
    if client.port() == 0 {
        choose_port_late(socket)?;
    } else {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&client.into())
}

/// Returns the number of connections that wait to be accepted from a listening socket.
pub fn waiting(listener: &impl AsFd) -> io::Result<u32> {
    // Of a listening socket this field is the length of its queue (tcp_get_info of the kernel).
    Ok(tcp_info(listener)?.tcpi_unacked)
}

/// Returns how the packets of a connection have fared.
pub fn path_stats(socket: &impl AsFd) -> io::Result<PathStats> {
    let info = tcp_info(socket)?;
    let round_trip = Duration::from_micros(info.tcpi_rtt.into());
    Ok(PathStats {
        round_trip: Some(round_trip).filter(|time| !time.is_zero()),
        retransmits: info.tcpi_total_retrans,
    })
}

fn tcp_info(socket: &impl AsFd) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or_default();
    // SAFETY: the kernel writes at most `length` bytes to `info`, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    nix::errno::Errno::result(result)?;
    // SAFETY: the structure consists of integers, for which zero is a value.
    Ok(unsafe { info.assume_init() })
}

/// Makes closing the socket send a reset instead of an orderly end.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Makes closing the socket an orderly end again.
pub fn end_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(None)
}

/// Returns whether the next byte to read was sent as urgent.
pub fn at_urgent_byte(socket: &impl AsFd) -> bool {
    let mut at_mark: libc::c_int = 0;
    // SAFETY: the kernel writes one integer to `at_mark`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCATMARK, &raw mut at_mark) };
    result == 0 && at_mark != 0
}

fn choose_port_late(socket: &Socket) -> io::Result<()> {
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    let (low, high) = SOURCE_PORTS;
    let range = u32::from(low) | u32::from(high) << 16;
    match set(socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, range) {
        // Kernels before 6.3 choose from the namespace's range.
        Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        other => other,
    }
}

fn stream(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    Ok(socket)
}

fn keepalive(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(TCP_KEEPALIVE)
            .with_interval(TCP_KEEPALIVE)
            .with_retries(TCP_KEEPALIVE_RETRIES),
    )
}

/// Reads a number that the kernel keeps about a socket.
fn get(socket: &impl AsFd, option: i32) -> io::Result<u64> {
    let mut value = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: the kernel writes at most `length` bytes to `value`, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(value)
}

/// Sets an option whose value is a number.
pub(super) fn set(socket: &impl AsFd, level: i32, option: i32, value: u32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<u32>()).unwrap_or_default();
    // SAFETY: the kernel reads `length` bytes of `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_listening_socket_is_told_from_all_others() {
        let own = netns_cookie(&probe().unwrap()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens(&listener, own, port).unwrap());
        assert!(!listens(&listener, own, port ^ 1).unwrap());
        assert!(!listens(&listener, NetnsCookie(own.0 + 1), port).unwrap());
        let bound = outbound(Family::V4).unwrap();
        bound.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let bound_port = bound.local_addr().unwrap().as_socket().unwrap().port();
        assert!(!listens(&bound, own, bound_port).unwrap(), "it does not listen");
        assert!(!listens(&probe().unwrap(), own, 0).unwrap_or(false));
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!listens(&udp, own, udp.local_addr().unwrap().port()).unwrap_or(false));
        assert!(!listens(&std::io::stderr(), own, port).unwrap_or(false), "no socket at all");
    }
}
