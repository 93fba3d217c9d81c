//! HTTP/2 frames by hand, for what no library would send or tell (RFC 9113, RFC 7541).

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a client sends before its first frame.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Largest payload of a frame that a peer must accept without further agreement, in bytes.
const MAX_PAYLOAD: usize = 16 << 10;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

// === impl Frame ===

impl Frame {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;

    /// The flag of SETTINGS and PING that answers one.
    pub(crate) const ACK: u8 = 0x1;
    /// Flags of HEADERS, CONTINUATION and DATA.
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const HAS_PRIORITY: u8 = 0x20;

    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// Returns an empty SETTINGS frame.
    pub(crate) fn no_settings() -> Self {
        Self::new(Self::SETTINGS, 0, 0, [])
    }

    /// Returns the frame as it is sent.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend_from_slice(&[self.kind, self.flags]);
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Returns the parameters of a SETTINGS frame by their numbers.
    pub(crate) fn settings(&self) -> BTreeMap<u16, u32> {
        let parameter = |bytes: &[u8; 6]| {
            let [id @ .., _, _, _, _] = *bytes;
            let [_, _, value @ ..] = *bytes;
            (u16::from_be_bytes(id), u32::from_be_bytes(value))
        };
        self.payload.as_chunks().0.iter().map(parameter).collect()
    }

    /// Returns the number that a `WINDOW_UPDATE` or `RST_STREAM` frame consists of.
    pub(crate) fn number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.as_slice().try_into().ok()?))
    }

    /// Returns the frames that open stream `stream` with this header block.
    pub(crate) fn headers(stream: u32, block: &[u8]) -> Vec<Self> {
        let last = block.len().div_ceil(MAX_PAYLOAD) - 1;
        let frame = |(index, part): (usize, &[u8])| Self {
            kind: if index == 0 { Self::HEADERS } else { Self::CONTINUATION },
            flags: if index == last { Self::END_HEADERS } else { 0 },
            stream,
            payload: part.to_vec(),
        };
        block.chunks(MAX_PAYLOAD).enumerate().map(frame).collect()
    }
}

/// Reads the next frame.
pub(crate) async fn read_frame(io: &mut (impl AsyncRead + Unpin)) -> Result<Frame> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c]))?;
    ensure!(length <= MAX_PAYLOAD, "a frame of {length} bytes");
    let mut payload = vec![0; length];
    io.read_exact(&mut payload).await?;
    Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
}

/// Writes a frame.
pub(crate) async fn write_frame(io: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<()> {
    io.write_all(&frame.to_bytes()).await?;
    Ok(io.flush().await?)
}

/// Returns the header block of a CONNECT for `authority`, with further headers, all of them any
/// bytes.
pub(crate) fn connect_head(authority: &[u8], headers: &[(&str, &[u8])]) -> Vec<u8> {
    // Literals without indexing; the numbers are those of the static table's names.
    let mut block = vec![0x02];
    put_string(&mut block, b"CONNECT");
    block.push(0x01);
    put_string(&mut block, authority);
    block.extend(header_block(headers));
    block
}

/// Returns a header block of any headers, pseudo-headers among them, all of them any bytes.
pub(crate) fn header_block(headers: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0x00);
        put_string(&mut block, name.as_bytes());
        put_string(&mut block, value);
    }
    block
}

/// Appends a string without Huffman coding, after its length as an integer of 7 bits and more.
fn put_string(block: &mut Vec<u8>, bytes: &[u8]) {
    const PREFIX_MAX: u8 = 0x7f;
    match u8::try_from(bytes.len()) {
        Ok(length) if length < PREFIX_MAX => block.push(length),
        _ => {
            block.push(PREFIX_MAX);
            let mut rest = bytes.len() - usize::from(PREFIX_MAX);
            while rest >= 0x80 {
                block.push(0x80 | u8::try_from(rest & 0x7f).unwrap_or_default());
                rest >>= 7;
            }
            block.push(u8::try_from(rest).unwrap_or_default());
        }
    }
    block.extend_from_slice(bytes);
}
