//! A tunnel inside a stream, past a gateway that passes bytes on.

use std::{
    cell::{Cell, RefCell},
    future::{pending, poll_fn},
    rc::Rc,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use prometheus_client::metrics::gauge::Gauge;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::LocalSet,
};

use super::*;
use crate::{
    hbone::{
        client::Tunnel,
        server,
        transport::{self, tests::Pair},
    },
    tls::server_name,
};

/// Several windows of a stream.
const BULK_BYTES: usize = 10 << 20;

/// What the other side has seen.
#[derive(Default)]
struct Seen {
    /// How inner tunnels ended: whether well.
    ends: RefCell<Vec<bool>>,
    ended: Notify,
    /// Bytes that the gateway passed on to the server.
    passed: Cell<usize>,
    readable: Cell<bool>,
}

fn request() -> Request<()> {
    Request::builder().method(Method::CONNECT).uri("web.shop:80").body(()).unwrap()
}

/// Returns a tunnel to a gateway that passes each stream on to a server of `inner`, which echoes.
async fn outer(
    inner: Arc<ServerConfig>,
    distrust: impl Future<Output = ()> + 'static,
) -> (Rc<Tunnel>, Rc<Seen>) {
    let seen = Rc::new(Seen::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let noted = seen.clone();
    tokio::task::spawn_local(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(serve(inner.clone(), socket, noted.clone()));
        }
    });
    let (client, gateway) = Pair::new().streams().await;
    let noted = seen.clone();
    tokio::task::spawn_local(async move {
        let tunnel = server::Tunnel::accept(gateway.stream).await.unwrap();
        let pass = |stream| {
            let noted = noted.clone();
            tokio::task::spawn_local(async move {
                let socket = TcpStream::connect(address).await.unwrap();
                pass_on(stream, socket, &noted).await;
            });
        };
        // The client may leave without a word.
        let _ = tunnel.run(pending(), pass).await;
    });
    (Tunnel::connect(client, Gauge::default(), distrust).await.unwrap(), seen)
}

/// Passes bytes both ways, each to its end.
async fn pass_on((request, mut respond): server::Stream, socket: TcpStream, seen: &Seen) {
    let mut recv = request.into_body();
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    let (mut from, mut to) = socket.into_split();
    let up = async {
        while let Some(Ok(data)) = recv.data().await {
            seen.passed.set(seen.passed.get() + data.len());
            if data.windows(8).any(|bytes| bytes == b"readable") {
                seen.readable.set(true);
            }
            to.write_all(&data).await.unwrap();
            recv.flow_control().release_capacity(data.len()).unwrap();
        }
        // The server may have gone.
        let _ = to.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = from.read(&mut buffer).await.unwrap_or(0);
            let data = Bytes::copy_from_slice(&buffer[..read]);
            if send.send_data(data, read == 0).is_err() || read == 0 {
                break;
            }
        }
    };
    tokio::join!(up, down);
}

async fn serve(config: Arc<ServerConfig>, socket: TcpStream, seen: Rc<Seen>) {
    let secured = transport::accept(config, socket).await.unwrap();
    let tunnel = server::Tunnel::accept(secured.stream).await.unwrap();
    let echo = |(request, mut respond): server::Stream| {
        tokio::task::spawn_local(async move {
            let mut recv = request.into_body();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            while let Some(Ok(data)) = recv.data().await {
                recv.flow_control().release_capacity(data.len()).unwrap();
                send.send_data(data, false).unwrap();
            }
            let _ = send.send_data(Bytes::new(), true);
        });
    };
    let ended = tunnel.run(pending(), echo).await;
    seen.ends.borrow_mut().push(ended.is_ok());
    seen.ended.notify_one();
}

/// Opens a stream inside one of `outer`.
async fn open_inside(outer: &Rc<Tunnel>, config: Arc<ClientConfig>) -> client::Stream {
    let stream = outer.reserve().open(request(), async |_| pending().await).await.unwrap();
    let secured = connect(config, server_name([10, 96, 0, 1].into()), stream).await.unwrap();
    assert!(secured.peer_certificates.is_some());
    let inner = Tunnel::connect(secured.stream, Gauge::default(), pending()).await.unwrap();
    inner.reserve().open(request(), async |_| pending().await).await.unwrap()
}

/// Sends `data` and its end, and returns what comes back to the end.
async fn echoed(stream: &mut client::Stream, data: &Bytes) -> Vec<u8> {
    let client::Stream { send, recv, .. } = stream;
    let up = async {
        let mut left = data.clone();
        while !left.is_empty() {
            send.reserve_capacity(left.len());
            let room = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
            send.send_data(left.split_to(room.min(left.len())), false).unwrap();
        }
        send.send_data(Bytes::new(), true).unwrap();
    };
    let down = async {
        let mut received = Vec::new();
        while let Some(data) = recv.data().await {
            let data = data.unwrap();
            recv.flow_control().release_capacity(data.len()).unwrap();
            received.extend_from_slice(&data);
        }
        received
    };
    tokio::join!(up, down).1
}

#[tokio::test]
async fn what_passes_inside_a_stream_arrives_to_the_end_and_nobody_reads_it_on_the_way() {
    let work = async {
        let (client, server) = Pair::new().configs();
        let (outer, seen) = outer(server, pending()).await;
        let data = Bytes::from(b"readable".repeat(BULK_BYTES / 8));
        for _ in 0..2 {
            let mut stream = open_inside(&outer, client.clone()).await;
            assert_eq!(outer.streams(), 1);
            assert!(echoed(&mut stream, &data).await == data);
            drop(stream);
            seen.ended.notified().await;
        }
        assert_eq!(*seen.ends.borrow(), [true, true], "both tunnels had an orderly end");
        assert!(seen.passed.get() > 2 * BULK_BYTES);
        assert!(!seen.readable.get());
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_tunnel_inside_one_that_is_cut_knows_why() {
    let work = async {
        let (client, server) = Pair::new().configs();
        let (revoke, revoked) = oneshot::channel::<()>();
        let (outer, _) = outer(server, async { drop(revoked.await) }).await;
        let mut stream = open_inside(&outer, client).await;
        assert!(!stream.slot.is_distrusted());
        revoke.send(()).unwrap();
        assert!(stream.recv.data().await.is_none_or(|end| end.is_err()));
        assert!(stream.slot.is_distrusted());
    };
    LocalSet::new().run_until(work).await;
}
