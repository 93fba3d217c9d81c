//! What a connection weighs: the state of its tasks, in bytes, against a budget. Buffers come on top
//! only while bytes are under way.

use std::future::Future;

use tokio::{net::TcpStream, sync::oneshot};

use super::{
    flow::{Flow, Meter},
    inbound, outbound,
    relay::{self, TunnelEnd},
};
use crate::telemetry::reason::CloseReason;

/// Task of a connection that a pod opens, whatever way it goes.
const OUTBOUND: usize = 1_152;

/// What it adds to be relayed through a tunnel.
const INTO_TUNNEL: usize = 1_536;

/// Task of a stream from a peer, relay included.
const STREAM: usize = 2_048;

/// Task of a plaintext connection to a pod, relay included.
const PLAINTEXT: usize = 2_432;

/// What is known of a connection, for each side that this process acts for.
const FLOW: usize = 288;

/// What a call to `make` returns, in bytes.
pub(super) fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

type Closed = oneshot::Receiver<CloseReason>;

#[test]
fn a_connection_keeps_within_its_budget() {
    let into_tunnel =
        size(|(socket, tunnel, meter, closed): (TcpStream, TunnelEnd, &Meter<'_>, &mut Closed)| {
            relay::client_to_tunnel(socket, tunnel, meter, closed)
        });
    for (what, size, budget) in [
        ("outbound", size(outbound::serve), OUTBOUND),
        ("into a tunnel", into_tunnel, INTO_TUNNEL),
        ("stream", inbound::size_of_stream(), STREAM),
        ("plaintext", size(inbound::serve_plaintext), PLAINTEXT),
        ("what is known of it", size_of::<Flow>(), FLOW),
    ] {
        assert!(size <= budget, "{what}: {size} bytes, with a budget of {budget}");
        assert!(size * 4 > budget * 3, "{what}: {size} bytes; lower the budget of {budget}");
    }
}
