//! The server of a tunnel: accepts streams until the peer leaves or a drain is asked for.

use std::{future::Future, rc::Rc};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    TunnelError,
    frames::{Alarm, Guarded},
    keepalive::until_peer_is_gone,
};
use crate::limits::{
    CONNECTION_WINDOW_BYTES, HANDSHAKE_TIMEOUT, MAX_FRAME_BYTES, MAX_PENDING_RESETS,
    MAX_PROVOKED_RESETS, SEND_BUFFER_BYTES, SERVER_MAX_HEADER_LIST_BYTES, SERVER_MAX_STREAMS,
    SMALL_FRAME_BUDGET_BYTES, STREAM_WINDOW_BYTES,
};

/// A stream that a peer opened: the request with the bytes it sends, and the answer.
pub type Stream = (Request<RecvStream>, SendResponse<Bytes>);

/// The server's end of a tunnel.
pub struct Tunnel<T> {
    connection: Connection<Guarded<T>, Bytes>,
    alarm: Rc<Alarm>,
}

// === impl Tunnel ===

impl<T: AsyncRead + AsyncWrite + Unpin> Tunnel<T> {
    /// Exchanges settings with the peer.
    pub async fn accept(io: T) -> Result<Self, TunnelError> {
        let (io, alarm) = Guarded::server(io);
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_header_list_size(SERVER_MAX_HEADER_LIST_BYTES)
            .max_concurrent_streams(SERVER_MAX_STREAMS)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(Some(MAX_PROVOKED_RESETS))
            .data_frame_budget(SMALL_FRAME_BUDGET_BYTES);
        let handshake = timeout(HANDSHAKE_TIMEOUT, builder.handshake(io)).await;
        Ok(Self { connection: handshake.map_err(|_| TunnelError::Timeout)??, alarm })
    }

    /// Gives each stream to `serve` until the peer leaves. Once `drain` completes the peer is asked
    /// to open no more streams, and those that are open finish. A peer that overdoes it is told so.
    pub async fn run(
        mut self,
        drain: impl Future<Output = ()>,
        mut serve: impl FnMut(Stream),
    ) -> Result<(), TunnelError> {
        let gone = until_peer_is_gone(self.connection.ping_pong());
        let raised = self.alarm.raised();
        tokio::pin!(drain, gone, raised);
        let (mut draining, mut excess) = (false, None);
        loop {
            tokio::select! {
                stream = self.connection.accept() => match stream {
                    Some(stream) => serve(stream?),
                    None => return excess.map_or(Ok(()), |excess| Err(TunnelError::Excess(excess))),
                },
                raised = &mut raised, if excess.is_none() => {
                    excess = Some(raised);
                    self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                () = &mut drain, if !draining => {
                    draining = true;
                    self.connection.graceful_shutdown();
                }
                () = &mut gone => return Err(TunnelError::Timeout),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use http::{Method, Response};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::oneshot,
    };

    use super::*;
    use crate::{
        hbone::{Excess, transport::tests::Pair},
        limits::ABANDONED_STREAMS_AT_ONCE,
    };

    #[tokio::test]
    async fn a_stream_of_a_peer_that_is_gone_does_not_seem_to_have_ended_well() {
        let (client, server) = Pair::new().streams().await;
        let peer_vanishes = async {
            let (tell, told) = oneshot::channel();
            let mut tell = Some(tell);
            let tunnel = Tunnel::accept(server.stream).await.unwrap();
            let run = tunnel.run(pending(), |stream| tell.take().unwrap().send(stream).unwrap());
            let answer = async {
                let (request, mut respond) = told.await.unwrap();
                let mut body = request.into_body();
                assert!(body.data().await.is_none());
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                poll_fn(|cx| send.poll_reset(cx)).await
            };
            tokio::join!(run, answer)
        };
        let (requests, mut connection) = h2::client::handshake(client).await.unwrap();
        let request = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80");
        let ask = async {
            let mut requests = requests.ready().await.unwrap();
            let (response, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
            response.await.unwrap();
            // From here on nobody reads what the server sends.
            tokio::time::pause();
        };
        let client = async {
            tokio::select! {
                _ = &mut connection => unreachable!(),
                () = ask => {}
            }
        };
        let ((), (tunnel, ended)) = tokio::join!(client, peer_vanishes);
        assert!(matches!(tunnel, Err(TunnelError::Timeout)));
        assert!(ended.is_err(), "{ended:?}");
    }

    #[tokio::test]
    async fn single_bytes_that_nobody_reads_cost_what_they_hold() {
        /// What the library counts for each, in bytes.
        const COST: usize = 255;
        const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
            \0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0\
            \0\0\x16\x01\x04\0\0\0\x01\x02\x07CONNECT\x01\x0b10.0.0.1:80";
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let write = async move {
            client.write_all(OPENING).await.unwrap();
            let frames = b"\0\0\x01\0\0\0\0\0\x01x".repeat(SMALL_FRAME_BUDGET_BYTES / COST + 100);
            // The server need not read all of it.
            let _ = client.write_all(&frames).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let serve = async move {
            let mut unread = Vec::new();
            let tunnel = Tunnel::accept(server).await.unwrap();
            tunnel.run(pending(), |stream| unread.push(stream)).await
        };
        let ((), ended) = tokio::join!(write, serve);
        assert!(ended.is_err_and(|error| error.is_excess()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_resets_as_many_accepted_streams_as_it_uses_and_some_more() {
        const MOST: usize = ABANDONED_STREAMS_AT_ONCE as usize;
        let (opened, ended) = open_and_reset(3 * MOST, |n| n % 2 == 0).await;
        assert!(opened == 3 * MOST && ended.is_ok(), "{opened}: {ended:?}");
        let (opened, ended) = open_and_reset(3 * MOST, |_| false).await;
        // The client hears of it a little later.
        assert!((MOST..MOST + SERVER_MAX_STREAMS as usize).contains(&opened), "{opened}");
        assert!(matches!(ended, Err(TunnelError::Excess(Excess::AbandonedStreams))), "{ended:?}");
    }

    /// Has a client open streams one by one, send a byte through those that are used, and reset each
    /// once it is accepted. Returns how many were, and how the tunnel ended.
    async fn open_and_reset(
        streams: usize,
        is_used: impl Fn(usize) -> bool,
    ) -> (usize, Result<(), TunnelError>) {
        let (client, server) = tokio::io::duplex(1 << 16);
        let serve = async move {
            let mut accepted = Vec::new();
            let accept = |(request, mut respond): Stream| {
                let send = respond.send_response(Response::new(()), false);
                accepted.push((request.into_body(), send));
            };
            Tunnel::accept(server).await.unwrap().run(pending(), accept).await
        };
        let ask = async move {
            let (mut requests, connection) = h2::client::handshake(client).await.unwrap();
            let open = async move {
                for n in 0..streams {
                    let request = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80");
                    let request = request.body(()).unwrap();
                    requests = requests.ready().await.map_err(|_| n)?;
                    let opened = requests.send_request(request, false);
                    let (answer, mut send) = opened.map_err(|_| n)?;
                    if is_used(n) {
                        send.send_data(Bytes::from_static(b"x"), false).map_err(|_| n)?;
                    }
                    answer.await.map_err(|_| n)?;
                    send.send_reset(Reason::CANCEL);
                }
                Ok(streams)
            };
            tokio::join!(async { connection.await.is_ok() }, open).1.unwrap_or_else(|n: usize| n)
        };
        tokio::join!(ask, serve)
    }
}
