//! The smallest HTTP/2 server, which answers calls of gRPC with what they send.

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;

/// Requests at once on a connection: more than the load has.
const STREAMS: u32 = 1_000;

/// Serves a connection to its end.
pub(crate) async fn serve_http2(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut builder = h2::server::Builder::new();
    let mut connection =
        builder.max_concurrent_streams(STREAMS).handshake::<_, Bytes>(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        if request.body().is_end_stream() {
            answer(respond)?;
        } else {
            tokio::spawn(call(request, respond));
        }
    }
    Ok(())
}

fn answer(mut respond: SendResponse<Bytes>) -> Result<()> {
    let head = Response::builder().header("content-type", "text/plain").body(())?;
    let mut body = respond.send_response(head, false)?;
    Ok(body.send_data(Bytes::from_static(b"hello\n"), true)?)
}

async fn call(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<()> {
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let mut send = respond.send_response(head, false)?;
    send.send_data(message.freeze(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(send.send_trailers(trailers)?)
}
