//! The servers: an echo and the smallest HTTP servers, on one thread.

use std::{future::pending, io};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::serve_http2::serve_http2;

/// Bytes read at a time: many small requests.
const BUFFER_BYTES: usize = 16 << 10;

const END_OF_REQUEST: &[u8] = b"\r\n\r\n";

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n";

/// Finds the ends of requests without a body in a stream that comes in pieces.
#[derive(Debug, Default)]
struct Requests {
    matched: usize,
}

/// Serves until it is killed.
pub(crate) fn run(echo_port: u16, http_port: u16, h2c_port: Option<u16>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let echo = TcpListener::bind(("::", echo_port)).await?;
        let http = TcpListener::bind(("::", http_port)).await?;
        let http2 = match h2c_port {
            Some(port) => Some(TcpListener::bind(("::", port)).await?),
            None => None,
        };
        loop {
            // An error of a connection, such as a reset, is its client's business.
            tokio::select! {
                accepted = echo.accept() => { tokio::spawn(serve_echo(accepted?.0)); }
                accepted = http.accept() => { tokio::spawn(serve_http(accepted?.0)); }
                accepted = accept(http2.as_ref()) => { tokio::spawn(serve_http2(accepted?)); }
            }
        }
    })
}

/// Accepts a connection; never without a listener.
async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => pending().await,
    }
}

async fn serve_echo(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}

async fn serve_http(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut requests = Requests::default();
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        match requests.ended_in(&buffer[..read]) {
            0 => {}
            1 => stream.write_all(RESPONSE).await?,
            several => stream.write_all(&RESPONSE.repeat(several)).await?,
        }
    }
}

// === impl Requests ===

impl Requests {
    /// Returns how many requests end in the next piece.
    fn ended_in(&mut self, piece: &[u8]) -> usize {
        let mut ended = 0;
        for byte in piece {
            if *byte == END_OF_REQUEST[self.matched] {
                self.matched += 1;
            } else {
                self.matched = usize::from(*byte == END_OF_REQUEST[0]);
            }
            if self.matched == END_OF_REQUEST.len() {
                self.matched = 0;
                ended += 1;
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_however_they_are_cut() {
        let stream = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        for size in 1..=stream.len() {
            let mut requests = Requests::default();
            let ended: usize = stream.chunks(size).map(|piece| requests.ended_in(piece)).sum();
            assert_eq!(ended, 2, "pieces of {size} bytes");
        }
    }
}
