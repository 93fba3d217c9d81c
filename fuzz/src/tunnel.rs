//! The server's end of a tunnel, fed with frames.

use std::{future::pending, time::Duration};

use bytes::Bytes;
use fairlead_tunnel::hbone::server::{Stream, Tunnel};
use http::Response;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    runtime::Builder,
    task::LocalSet,
    time::timeout,
};

/// What a client sends before its first frame, and the settings that a server waits for.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Bytes on the way to either end.
const ON_THE_WAY: usize = 64 << 10;

/// Time after which the server hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The input is what a client sends after its opening. Whatever that is, the server is done soon
/// after the client is.
pub fn tunnel(data: &[u8]) {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let work = async {
        let (client, server) = tokio::io::duplex(ON_THE_WAY);
        let both = async { tokio::join!(serve(server), send(client, data)) };
        assert!(timeout(PATIENCE, both).await.is_ok(), "the server hangs");
    };
    LocalSet::new().block_on(&runtime, work);
}

/// Each stream ends in another way.
async fn serve(io: DuplexStream) {
    let Ok(tunnel) = Tunnel::accept(io).await else { return };
    let mut streams = 0;
    // How it ends is the client's business.
    let _ = tunnel
        .run(pending(), |stream| {
            streams += 1;
            tokio::task::spawn_local(serve_stream(stream, streams));
        })
        .await;
}

async fn serve_stream((request, mut respond): Stream, number: usize) {
    let mut body = request.into_body();
    match number % 3 {
        0 => drop(respond),
        1 => {
            let _ = respond.send_response(Response::new(()), true);
        }
        _ => {
            let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                if send.send_data(Bytes::from_static(b"taken"), false).is_err() {
                    return;
                }
            }
            let _ = send.send_data(Bytes::new(), true);
        }
    }
}

/// Sends everything, reads everything, and leaves.
async fn send(io: DuplexStream, data: &[u8]) {
    let (mut receive, mut send) = tokio::io::split(io);
    let write = async {
        // A server that has had enough reads no more.
        let _ = send.write_all(OPENING).await;
        let _ = send.write_all(data).await;
        let _ = send.shutdown().await;
    };
    let read = async {
        let mut answers = Vec::new();
        let _ = receive.read_to_end(&mut answers).await;
    };
    tokio::join!(write, read);
}
