//! Sockets made inside pods, ahead of their use by a proxy.

use std::{io, os::fd::OwnedFd};

use fairlead_sys::{
    datagram::upstream,
    netns::Netns,
    socket::{Family, delivery, outbound},
};

use crate::link::message::SocketKind;

/// Sockets of each kind that a proxy is given with a pod: a few connections at once.
pub(super) const AHEAD: usize = 4;

/// Makes `count` sockets; fewer, and the reason, if the operating system makes no more.
pub(super) fn make(
    netns: &Netns,
    kind: SocketKind,
    count: usize,
) -> (Vec<OwnedFd>, Option<io::Error>) {
    let mut sockets = Vec::with_capacity(count);
    let made = netns.within(|| {
        while sockets.len() < count {
            sockets.push(one(kind)?);
        }
        Ok(())
    });
    let error = made.and_then(|result| result).err();
    (sockets, error)
}

fn one(kind: SocketKind) -> io::Result<OwnedFd> {
    let socket = match kind {
        SocketKind::OutboundV4 => outbound(Family::V4),
        SocketKind::OutboundV6 => outbound(Family::V6),
        SocketKind::DeliveryV4 => delivery(Family::V4),
        SocketKind::DeliveryV6 => delivery(Family::V6),
        SocketKind::DatagramV4 => upstream(Family::V4),
        SocketKind::DatagramV6 => upstream(Family::V6),
    };
    socket.map(Into::into)
}
