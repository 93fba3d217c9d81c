//! The last step into a pod: a connection to the application that appears to come from the client.

use std::{io, net::SocketAddr};

use tokio::net::TcpStream;

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
        return connect(socket, to).await;
    }
    if client.port() != 0
        && let Ok(socket) = pod.delivery_socket(client).await
    {
        match connect(socket, to).await {
            Err(CloseReason::ConnectFailed(kind)) if port_is_taken(kind) => {}
            connected => return connected,
        }
    }
    let any_port = SocketAddr::new(client.ip(), 0);
    let socket = pod.delivery_socket(any_port).await.map_err(|e| socket_failure(&e))?;
    connect(socket, to).await
}

fn port_is_taken(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}
