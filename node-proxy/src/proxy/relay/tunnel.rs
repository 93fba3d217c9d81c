//! Socket to tunnel stream and back (RFC 9113 section 8.5).

use std::{
    future::{pending, poll_fn},
    pin::pin,
};

use bytes::Bytes;
use fairlead_tunnel::adaptive_read::ReadSize;
use h2::{Reason, RecvStream, SendStream};
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
};

use super::{
    Broken, Side, abort, both,
    copy::{finish, read, write},
    reset,
};
use crate::{proxy::flow::Meter, telemetry::reason::CloseReason};

/// The tunnel's end of a connection.
#[derive(Debug)]
pub(in crate::proxy) struct TunnelEnd {
    pub(in crate::proxy) send: SendStream<Bytes>,
    pub(in crate::proxy) recv: RecvStream,
}

/// Relays a client's socket into a tunnel.
pub(in crate::proxy) async fn client_to_tunnel(
    client: TcpStream,
    tunnel: TunnelEnd,
    meter: &Meter<'_>,
    closed: &mut oneshot::Receiver<CloseReason>,
) -> CloseReason {
    let up = |n| meter.request(n);
    let down = |n| meter.response(n);
    relay((client, Side::Client), (tunnel, Side::Server), (up, down), closed).await
}

/// Relays a tunnel to the server's socket.
pub(in crate::proxy) async fn tunnel_to_server(
    tunnel: TunnelEnd,
    server: TcpStream,
    meter: &Meter<'_>,
    closed: &mut oneshot::Receiver<CloseReason>,
) -> CloseReason {
    let up = |n| meter.response(n);
    let down = |n| meter.request(n);
    relay((server, Side::Server), (tunnel, Side::Client), (up, down), closed).await
}

async fn relay(
    (socket, near): (TcpStream, Side),
    (mut tunnel, far): (TunnelEnd, Side),
    (into, out): (impl Fn(u64), impl Fn(u64)),
    closed: &mut oneshot::Receiver<CloseReason>,
) -> CloseReason {
    let received = Notify::new();
    let reason = {
        let send = pin!(async {
            send(&socket, near, &mut tunnel.send, far, into).await?;
            // The other direction may wait, and does not notice every reset meanwhile.
            tokio::select! {
                () = received.notified() => Ok(()),
                ended = ended_by_peer(&mut tunnel.send, far) => ended,
                broken = reset(&socket, near) => Err(broken),
            }
        });
        let receive = pin!(async {
            receive(&mut tunnel.recv, far, &socket, near, out).await?;
            received.notify_one();
            Ok(())
        });
        both(send, receive, pin!(pending()), closed).await
    };
    if reason != CloseReason::Completed {
        // A reset of TCP is a reset of the stream with this code, and the other way round.
        tunnel.send.send_reset(Reason::CONNECT_ERROR);
        abort(&socket);
    }
    reason
}

async fn send(
    socket: &TcpStream,
    near: Side,
    stream: &mut SendStream<Bytes>,
    far: Side,
    moved: impl Fn(u64),
) -> Result<(), Broken> {
    let mut size = ReadSize::default();
    loop {
        let data = tokio::select! {
            biased;
            ended = ended_by_peer(stream, far) => return ended,
            data = read(socket, &mut size) => data.map_err(|_| Broken::Reset(near))?,
        };
        if data.is_empty() {
            return stream.send_data(Bytes::new(), true).map_err(|e| broken(&e, far));
        }
        // A read shows a reset of the socket; while the tunnel has no room there is none.
        tokio::select! {
            biased;
            sent = send_all(stream, data.freeze(), far, &moved) => sent?,
            broken = reset(socket, near) => return Err(broken),
        }
    }
}

async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    far: Side,
    moved: &impl Fn(u64),
) -> Result<(), Broken> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match poll_fn(|cx| stream.poll_capacity(cx)).await {
            // Told when there is room, which something else may have taken by then. An empty frame
            // would be no harm but to peers that count them.
            Some(Ok(0)) => continue,
            Some(Ok(room)) => room.min(data.len()),
            Some(Err(e)) => return Err(broken(&e, far)),
            None => return Err(Broken::Reset(far)),
        };
        stream.send_data(data.split_to(room), false).map_err(|e| broken(&e, far))?;
        moved(room as u64);
    }
    Ok(())
}

async fn receive(
    stream: &mut RecvStream,
    far: Side,
    socket: &TcpStream,
    near: Side,
    moved: impl Fn(u64),
) -> Result<(), Broken> {
    while let Some(frame) = stream.data().await {
        let data = match frame {
            Ok(data) => data,
            // The peer is done and wants no more (RFC 9113 section 8.1). The library forgets an end
            // of the stream that came before the reset if nobody has read that far.
            Err(e) if e.is_reset() && e.reason() == Some(Reason::NO_ERROR) => break,
            Err(e) => return Err(broken(&e, far)),
        };
        let length = data.len();
        write(socket, data, &moved).await.map_err(|_| Broken::Reset(near))?;
        // Only what the socket took makes room for more: a slow reader holds a window, no more.
        let _ = stream.flow_control().release_capacity(length);
    }
    finish(socket).map_err(|_| Broken::Reset(near))
}

/// Completes when the peer resets the stream.
async fn ended_by_peer(stream: &mut SendStream<Bytes>, far: Side) -> Result<(), Broken> {
    match poll_fn(|cx| stream.poll_reset(cx)).await {
        // The peer wants no more (RFC 9113 section 8.1); what it sent is still good.
        Ok(Reason::NO_ERROR) => Ok(()),
        Ok(_) => Err(Broken::Reset(far)),
        Err(e) => Err(broken(&e, far)),
    }
}

fn broken(error: &h2::Error, far: Side) -> Broken {
    if error.is_reset() && error.is_remote() { Broken::Reset(far) } else { Broken::TunnelLost }
}
