//! PINGs that tell a silent peer from a dead one.

use std::future::pending;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::limits::{PING_INTERVAL, PING_TIMEOUT};

/// Pings until the peer does not answer; returns then, and never while the peer is alive.
///
/// Must be polled together with the connection.
pub(super) async fn until_peer_is_gone(ping_pong: Option<PingPong>) {
    let Some(mut ping_pong) = ping_pong else { return pending().await };
    loop {
        sleep(PING_INTERVAL).await;
        if !matches!(timeout(PING_TIMEOUT, ping_pong.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}
