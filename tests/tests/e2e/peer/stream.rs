//! A stream of a tunnel, at either end.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

/// A stream of a tunnel, at either end.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Headers that the other end sent.
    pub(crate) headers: HeaderMap,
    send: SendStream<Bytes>,
    recv: RecvStream,
    unread: BytesMut,
}

// === impl Stream ===

impl Stream {
    pub(crate) fn new(headers: HeaderMap, send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { headers, send, recv, unread: BytesMut::new() }
    }

    /// Sends `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.send.send_data(Bytes::copy_from_slice(bytes), false)?)
    }

    /// Ends this end's direction.
    pub(crate) fn end(&mut self) -> Result<()> {
        Ok(self.send.send_data(Bytes::new(), true)?)
    }

    /// Resets the stream.
    pub(crate) fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
    }

    /// Receives exactly `expected`.
    pub(crate) async fn expect(&mut self, expected: &[u8]) -> Result<()> {
        while self.unread.len() < expected.len() {
            let data = self.next().await?.context("the stream has ended")?;
            self.unread.extend_from_slice(&data);
        }
        let received = self.unread.split_to(expected.len());
        ensure!(received == expected, "received {received:?}");
        Ok(())
    }

    /// Waits for the end of the other direction.
    pub(crate) async fn expect_end(&mut self) -> Result<()> {
        match self.next().await? {
            None => Ok(()),
            Some(data) => bail!("received {data:?} in place of the end"),
        }
    }

    /// Waits for a reset of the stream.
    pub(crate) async fn expect_reset(&mut self) -> Result<Reason> {
        match self.next().await {
            Ok(received) => bail!("received {received:?} in place of a reset"),
            Err(error) if error.is_reset() && error.is_remote() => {
                error.reason().context("a reset without reason")
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sends back all that comes, to the end.
    pub(crate) async fn echo(mut self) -> Result<()> {
        while let Some(data) = self.next().await? {
            self.send.send_data(data, false)?;
        }
        self.end()
    }

    /// Returns the next bytes that are not empty; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, h2::Error> {
        loop {
            match self.recv.data().await.transpose()? {
                Some(data) if data.is_empty() => {}
                Some(data) => {
                    self.recv.flow_control().release_capacity(data.len())?;
                    return Ok(Some(data));
                }
                None => return Ok(None),
            }
        }
    }
}
