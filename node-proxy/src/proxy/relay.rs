//! Moves bytes between a client and a server until both are done, keeping every way in which TCP
//! ends a stream: half-close stays half-close, and a reset stays a reset.

mod copy;
mod splice;
mod tunnel;

use std::{
    future::Future,
    pin::{Pin, pin},
};

use fairlead_sys::socket::reset_on_close;
use tokio::{io::Interest, net::TcpStream, sync::oneshot};

use super::flow::Meter;
use crate::telemetry::reason::CloseReason;

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
    let request = pin!(splice::copy((&client, Side::Client), (&server, Side::Server), |n| {
        meter.request(n);
    }));
    let response = pin!(splice::copy((&server, Side::Server), (&client, Side::Client), |n| {
        meter.response(n);
    }));
    let watch = pin!(async {
        tokio::select! {
            side = reset(&client, Side::Client) => side,
            side = reset(&server, Side::Server) => side,
        }
    });
    let reason = both(request, response, watch, closed).await;
    meter.measure(&client, &server);
    if reason != CloseReason::Completed {
        abort(&client);
        abort(&server);
    }
    reason
}

/// Runs both directions to their ends, or until one breaks, a side resets, or the connection must
/// be closed. The futures stay where they are: moved, each would take its place once more.
async fn both(
    request: Pin<&mut impl Future<Output = Result<(), Broken>>>,
    response: Pin<&mut impl Future<Output = Result<(), Broken>>>,
    reset: Pin<&mut impl Future<Output = Broken>>,
    closed: &mut oneshot::Receiver<CloseReason>,
) -> CloseReason {
    let directions = pin!(async { tokio::try_join!(request, response) });
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a relay may hold for every open connection, in bytes.
    const RELAY_BYTES: usize = 1792;

    type Log = &'static Meter<'static>;
    type Closed = &'static mut oneshot::Receiver<CloseReason>;

    fn size<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_relay_is_small_while_it_waits() {
        let sizes = [
            size(|(a, b, m, c): (TcpStream, TcpStream, Log, Closed)| sockets(a, b, m, c)),
            size(|(a, b, m, c): (TcpStream, TunnelEnd, Log, Closed)| client_to_tunnel(a, b, m, c)),
            size(|(a, b, m, c): (TunnelEnd, TcpStream, Log, Closed)| tunnel_to_server(a, b, m, c)),
        ];
        assert!(sizes.iter().all(|size| *size <= RELAY_BYTES), "{sizes:?}");
    }
}
