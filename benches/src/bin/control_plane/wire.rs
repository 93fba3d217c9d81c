//! As much of protocol buffers as the load needs: requests are few and short, responses are looked at
//! without being taken apart.

use bytes::{BufMut as _, Bytes, BytesMut};

pub(crate) const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
pub(crate) const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// Length of what precedes a message on a gRPC stream, in bytes.
pub(crate) const PREFIX_BYTES: usize = 5;

/// What the server says about a response that is followed by more of the same.
const INCOMPLETE: &[u8] = b"incomplete";

/// The bytes of a name, or of its version.
pub(crate) type Text = Box<[u8]>;

const LENGTH_DELIMITED: u64 = 2;

/// What a response says.
#[derive(Debug, Default)]
pub(crate) struct Response<'a> {
    pub(crate) type_url: &'a [u8],
    pub(crate) nonce: &'a [u8],
    pub(crate) is_whole: bool,
    resources: Vec<&'a [u8]>,
}

// === impl Response ===

impl<'a> Response<'a> {
    /// Looks at a message; none if it is malformed.
    pub(crate) fn read(message: &'a [u8]) -> Option<Self> {
        let mut response = Self { is_whole: true, ..Self::default() };
        for_each(message, |field, value| match field {
            1 => response.is_whole = value != INCOMPLETE,
            2 => response.resources.push(value),
            4 => response.type_url = value,
            5 => response.nonce = value,
            _ => {}
        })?;
        Some(response)
    }

    /// Returns name and version of each resource.
    pub(crate) fn resources(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.resources.iter().map(|resource| {
            let (mut name, mut version) = (&[][..], &[][..]);
            // What is malformed has no name that anybody waits for.
            let _ = for_each(resource, |field, value| match field {
                1 => version = value,
                3 => name = value,
                _ => {}
            });
            (name, version)
        })
    }
}

/// Returns a first request of a type, with what the client has from before.
pub(crate) fn subscribe(type_url: &str, node: &str, had: &[(Text, Text)]) -> Bytes {
    let mut message = BytesMut::new();
    let mut identity = BytesMut::new();
    put(1, node.as_bytes(), &mut identity);
    put(1, &identity, &mut message);
    put(2, type_url.as_bytes(), &mut message);
    let mut entry = BytesMut::new();
    for (name, version) in had {
        entry.clear();
        put(1, name, &mut entry);
        put(2, version, &mut entry);
        put(5, &entry, &mut message);
    }
    framed(&message)
}

/// Returns the acknowledgement of a response.
pub(crate) fn acknowledge(response: &Response<'_>) -> Bytes {
    let mut message = BytesMut::new();
    put(2, response.type_url, &mut message);
    put(6, response.nonce, &mut message);
    framed(&message)
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

fn put(field: u64, value: &[u8], out: &mut BytesMut) {
    put_number(field << 3 | LENGTH_DELIMITED, out);
    put_number(value.len() as u64, out);
    out.put_slice(value);
}

fn put_number(mut number: u64, out: &mut BytesMut) {
    while number >= 0x80 {
        out.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8((number & 0x7f) as u8);
}

/// Shows `look` every field, all of which have a length in what the control plane says.
fn for_each<'a>(mut message: &'a [u8], mut look: impl FnMut(u64, &'a [u8])) -> Option<()> {
    while !message.is_empty() {
        let key = take_number(&mut message)?;
        if key & 7 != LENGTH_DELIMITED {
            return None;
        }
        let length = usize::try_from(take_number(&mut message)?).ok()?;
        let (value, rest) = message.split_at_checked(length)?;
        look(key >> 3, value);
        message = rest;
    }
    Some(())
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
