//! Moves bytes between a client and a server until both are done, keeping every way in which TCP
//! ends a stream: half-close stays half-close, and a reset stays a reset.

mod copy;
mod splice;
mod tunnel;

use std::{future::Future, pin::pin};

use tokio::{io::Interest, net::TcpStream, sync::oneshot};

use super::flow::Meter;
use crate::{sys::socket::reset_on_close, telemetry::reason::CloseReason};

pub(super) use self::tunnel::{TunnelEnd, client_to_tunnel, tunnel_to_server};

/// Which end of the connection something happened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// Why one direction ended before its end of stream.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection on that side was reset.
    Reset(Side),
    /// The tunnel below the stream is gone.
    TunnelLost,
}

// === impl Broken ===

impl From<Broken> for CloseReason {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Reset(Side::Client) => Self::ClientReset,
            Broken::Reset(Side::Server) => Self::ServerReset,
            Broken::TunnelLost => Self::TunnelLost,
        }
    }
}

/// Moves bytes between two sockets.
pub(super) async fn sockets(
    client: TcpStream,
    server: TcpStream,
    meter: &Meter<'_>,
    closed: &mut oneshot::Receiver<CloseReason>,
) -> CloseReason {
    let request = splice::copy((&client, Side::Client), (&server, Side::Server), |n| {
        meter.request(n);
    });
    let response = splice::copy((&server, Side::Server), (&client, Side::Client), |n| {
        meter.response(n);
    });
    let watch = async {
        tokio::select! {
            side = reset(&client, Side::Client) => side,
            side = reset(&server, Side::Server) => side,
        }
    };
    // Pinned here, their state is not in the future once more for each call that they go through.
    let reason = both(pin!(request), pin!(response), pin!(watch), closed).await;
    if reason != CloseReason::Completed {
        abort(&client);
        abort(&server);
    }
    reason
}

/// Runs both directions to their ends, or until one breaks, a side resets, or the connection must
/// be closed.
async fn both(
    request: impl Future<Output = Result<(), Broken>>,
    response: impl Future<Output = Result<(), Broken>>,
    reset: impl Future<Output = Broken>,
    closed: &mut oneshot::Receiver<CloseReason>,
) -> CloseReason {
    let directions = async { tokio::try_join!(request, response) };
    tokio::select! {
        biased;
        // A sender that is gone without a word means the table is gone: the process ends.
        reason = closed => reason.unwrap_or(CloseReason::Drained),
        done = directions => match done {
            Ok(_) => CloseReason::Completed,
            Err(broken) => broken.into(),
        },
        broken = reset => broken.into(),
    }
}

/// Completes when the socket is reset, also while nobody reads from it.
async fn reset(socket: &TcpStream, side: Side) -> Broken {
    // The readiness itself fails only when the runtime ends.
    let _ = socket.ready(Interest::ERROR).await;
    Broken::Reset(side)
}

/// Makes the peer see a reset when the socket is dropped.
fn abort(socket: &TcpStream) {
    // Fails only on a socket that is already gone.
    let _ = reset_on_close(socket);
}
