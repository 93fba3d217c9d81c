//! The last step into a pod: a connection to the application that appears to come from the client.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use fairlead_sys::socket::{end_on_close, reset_on_close};
use socket2::Socket;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{
    pod::Pod,
    upstream::{connect, socket_failure},
};
use crate::telemetry::reason::CloseReason;

/// Connects to the application at `to` in the name of `client`, from the client's own port if that
/// is not 0 and not taken.
pub(super) async fn deliver(
    pod: &Pod,
    client: SocketAddr,
    to: SocketAddr,
) -> Result<TcpStream, CloseReason> {
    if pod.owns(client.ip()) || client.is_ipv4() != to.is_ipv4() {
        // The pod calls itself, or came by its other family: nothing to preserve.
        let socket = pod.outbound_socket(to.ip()).await.map_err(|e| socket_failure(&e))?;
        return join(socket, to).await;
    }
    if client.port() != 0
        && let Ok(socket) = pod.delivery_socket(client).await
    {
        match join(socket, to).await {
            Err(CloseReason::ConnectFailed(kind)) if port_is_taken(kind) => {}
            connected => return connected,
        }
    }
    let any_port = SocketAddr::new(client.ip(), 0);
    let socket = pod.delivery_socket(any_port).await.map_err(|e| socket_failure(&e))?;
    join(socket, to).await
}

/// Connects to the application, a proxy, over the loopback address of the family of `to`: only there
/// may `header` be trusted, which it is sent first.
pub(super) async fn deliver_to_proxy(
    pod: &Pod,
    to: SocketAddr,
    header: &[u8],
) -> Result<TcpStream, CloseReason> {
    let loopback: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = pod.outbound_socket(loopback).await.map_err(|e| socket_failure(&e))?;
    let mut stream = join(socket, SocketAddr::new(loopback, to.port())).await?;
    // The buffer of a new socket has room for it.
    let sent = stream.write_all(header).await;
    sent.map(|()| stream).map_err(|error| CloseReason::ConnectFailed(error.kind()))
}

/// Connects to the application. If the client leaves meanwhile, an application that has accepted
/// already sees a reset: nobody has said all there was to say.
async fn join(socket: Socket, to: SocketAddr) -> Result<TcpStream, CloseReason> {
    // Either fails only on a socket that is already gone.
    let _ = reset_on_close(&socket);
    let stream = connect(socket, to).await?;
    let _ = end_on_close(&stream);
    Ok(stream)
}

fn port_is_taken(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}
