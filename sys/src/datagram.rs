//! The sockets inside a pod by which DNS queries are taken, answered and passed on.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
};

use fairlead_ebpf::{
    CAPTURE_MARK,
    datagrams::{DNS_PORT, RESOLVER_PORT},
};
use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use super::socket::{Family, set};

/// `SO_LOCK_FILTER` of `asm-generic/socket.h`.
const SO_LOCK_FILTER: i32 = 44;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// Place of the checksum in a UDP header.
const UDP_CHECKSUM: u32 = 6;

/// A query as it has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its length; more than the buffer's if it did not fit.
    pub length: usize,
    /// Who asks.
    pub client: SocketAddr,
    /// Address of the name server that is asked.
    pub server: IpAddr,
}

/// Opens the socket that takes queries: on `lo`, of both families, of whatever destination.
///
/// A predecessor's may be open as well: the two share the port until that one is closed.
pub fn queries() -> io::Result<Socket> {
    let socket = datagram(Domain::IPV6)?;
    socket.set_only_v6(false)?;
    // From elsewhere nobody asks.
    socket.bind_device(Some(b"lo"))?;
    socket.set_reuse_port(true)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, RESOLVER_PORT)).into())?;
    Ok(socket)
}

/// Opens a socket that sends answers from the name servers' own addresses and port.
///
/// It is bound to no port, which may be the application's, and so has to write the UDP header
/// itself. It reads nothing, and reaches nothing but `lo`.
pub fn answers(family: Family) -> io::Result<Socket> {
    let socket =
        Socket::new(family.domain(), Type::RAW.nonblocking().cloexec(), Some(Protocol::UDP))?;
    // Before anything can arrive, and for good: a program of no instruction but "take 0 bytes".
    socket.attach_filter(&[socket2::SockFilter::new(REJECT, 0, 0, 0)])?;
    set(&socket, libc::SOL_SOCKET, SO_LOCK_FILTER, 1)?;
    setsockopt(&socket, sockopt::Mark, &CAPTURE_MARK)?;
    socket.bind_device(Some(b"lo"))?;
    match family {
        Family::V4 => setsockopt(&socket, sockopt::IpTransparent, &true)?,
        Family::V6 => {
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1)?;
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_CHECKSUM, UDP_CHECKSUM)?;
        }
    }
    Ok(socket)
}

/// Opens a socket for queries that leave the pod.
pub fn upstream(family: Family) -> io::Result<Socket> {
    datagram(family.domain())
}

/// Reads the next query from a socket of [`queries`].
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Arrival> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let received =
        recvmsg::<SockaddrIn6>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let server = received.cmsgs()?.find_map(|message| {
        let ControlMessageOwned::Ipv6PacketInfo(info) = message else { return None };
        Some(Ipv6Addr::from(info.ipi6_addr.s6_addr))
    });
    let (Some(client), Some(server)) = (received.address, server) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let client = SocketAddr::new(IpAddr::V6(client.ip()).to_canonical(), client.port());
    Ok(Arrival { length: received.bytes, client, server: IpAddr::V6(server).to_canonical() })
}

/// Sends an answer to `client` as coming from port 53 of `server`, by a socket of [`answers`] of the
/// right family.
pub fn answer(
    socket: &impl AsFd,
    message: &[u8],
    client: SocketAddr,
    server: IpAddr,
) -> io::Result<()> {
    let length = u16::try_from(UDP_HEADER + message.len());
    let length = length.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fields = [DNS_PORT, client.port(), length, 0].map(u16::to_be_bytes);
    let header: &[u8] = fields.as_flattened();
    let parts = [IoSlice::new(header), IoSlice::new(message)];
    let (fd, flags) = (socket.as_fd().as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    match (client, server) {
        (SocketAddr::V4(client), IpAddr::V4(server)) => {
            let from = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(server).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let to = SockaddrIn::from(client);
            sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&from)], flags, Some(&to))?;
        }
        (SocketAddr::V6(mut client), IpAddr::V6(server)) => {
            let from = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: server.octets() },
                ipi6_ifindex: 0,
            };
            // A raw socket takes a protocol there.
            client.set_port(0);
            let to = SockaddrIn6::from(client);
            sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&from)], flags, Some(&to))?;
        }
        (SocketAddr::V4(_), IpAddr::V6(_)) | (SocketAddr::V6(_), IpAddr::V4(_)) => {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    Ok(())
}

/// `BPF_RET | BPF_K` of `linux/filter.h`.
const REJECT: u16 = 0x06;

fn datagram(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))
}
