//! Requests on a connection in a tunnel, and their answers.

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::spawn_local,
};

use super::tunnel::Io;

/// What the body of our server's answers ends with.
const END: &[u8] = b"\r\n\r\nhello\n";

/// A message of gRPC: not compressed, five bytes long.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

/// Bytes read at a time.
const BUFFER_BYTES: usize = 4 << 10;

/// A connection, or a place on one.
pub(super) enum Requests {
    Http1 { io: Io, buffer: BytesMut },
    Http2 { requests: SendRequest<Bytes>, is_grpc: bool },
}

// === impl Requests ===

impl Requests {
    pub(super) fn http1(io: Io) -> Self {
        Self::Http1 { io, buffer: BytesMut::with_capacity(BUFFER_BYTES) }
    }

    pub(super) async fn http2(io: Io, is_grpc: bool) -> Result<Self> {
        let (requests, connection) = h2::client::handshake(io).await?;
        spawn_local(async move {
            // Its streams tell of errors.
            let _ = connection.await;
        });
        Ok(Self::Http2 { requests, is_grpc })
    }

    /// Returns another place on the same connection.
    pub(super) fn another(&self) -> Result<Self> {
        match self {
            Self::Http1 { .. } => anyhow::bail!("HTTP/1.1 has one request at a time"),
            Self::Http2 { requests, is_grpc } => {
                Ok(Self::Http2 { requests: requests.clone(), is_grpc: *is_grpc })
            }
        }
    }

    /// Sends a request and reads the answer to its end; one that is not a success is an error.
    pub(super) async fn exchange(&mut self, path: &str) -> Result<()> {
        match self {
            Self::Http1 { .. } => self.head(path).await.map(drop),
            Self::Http2 { requests, is_grpc } => {
                let ready = requests.clone().ready().await?;
                if *is_grpc { call(ready, path).await } else { get(ready, path).await }
            }
        }
    }

    /// Sends a request over HTTP/1.1 and returns the head of the answer, which is a success.
    pub(super) async fn head(&mut self, path: &str) -> Result<&[u8]> {
        let Self::Http1 { io, buffer } = self else { anyhow::bail!("not HTTP/1.1") };
        let request = format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n");
        io.write_all(request.as_bytes()).await?;
        buffer.clear();
        while !buffer.ends_with(END) {
            ensure!(io.read_buf(buffer).await? > 0, "closed in the middle of an answer");
        }
        let answer = String::from_utf8_lossy(buffer);
        ensure!(buffer.starts_with(b"HTTP/1.1 200 "), "{answer}");
        Ok(buffer.strip_suffix(END).unwrap_or_default())
    }
}

async fn get(mut requests: SendRequest<Bytes>, path: &str) -> Result<()> {
    let request = Request::get(format!("http://server{path}")).body(())?;
    let (response, _) = requests.send_request(request, true)?;
    let response = response.await?;
    ensure!(response.status() == StatusCode::OK, "{response:?}");
    let mut body = response.into_body();
    ensure!(*read(&mut body).await? == *b"hello\n", "another body");
    Ok(())
}

async fn call(mut requests: SendRequest<Bytes>, path: &str) -> Result<()> {
    let request = Request::post(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut send) = requests.send_request(request, false)?;
    send.send_data(Bytes::from_static(MESSAGE), true)?;
    let response = response.await?;
    ensure!(response.status() == StatusCode::OK, "{response:?}");
    let mut body = response.into_body();
    ensure!(read(&mut body).await? == MESSAGE, "another message");
    let trailers = body.trailers().await?.context("no trailers")?;
    ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "{trailers:?}");
    Ok(())
}

async fn read(body: &mut RecvStream) -> Result<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
