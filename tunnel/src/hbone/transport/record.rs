//! TLS 1.3 records (RFC 8446 section 5), opened and sealed without a copy to spare.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, Nonce,
    UnboundKey,
};
use bytes::{BufMut, BytesMut};
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, InvalidMessage, PeerMisbehaved,
    crypto::cipher::{AeadKey, Iv, Nonce as RecordNonce, make_tls13_aad},
};

/// Header of a record, in bytes: type, version, length.
const HEADER_BYTES: usize = 5;

/// Tag of every cipher of TLS 1.3, in bytes.
const TAG_BYTES: usize = MAX_TAG_LEN;

/// Content of a record, in bytes, at most.
pub(super) const MAX_CONTENT_BYTES: usize = 1 << 14;

/// Room for type, padding and tag in a record, in bytes: RFC 8446 section 5.2.
const MAX_EXPANSION_BYTES: usize = 256;

/// Type that every encrypted record shows.
const OUTER_TYPE: u8 = 23;

/// Version that every encrypted record shows: that of TLS 1.2.
const OUTER_VERSION: [u8; 2] = [3, 3];

/// Opens the records of one direction in turn.
pub(super) struct Opener(Keys);

/// Seals the records of one direction in turn.
pub(super) struct Sealer(Keys);

/// A key, and the number of records it has been used for.
struct Keys {
    key: LessSafeKey,
    iv: Iv,
    sequence: u64,
}

/// The place of a record in what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes of the record with its header.
    pub(super) length: usize,
    /// Bytes that its opening writes: content, type and padding.
    pub(super) opened: usize,
}

/// What a record held: the first `length` bytes of where it was opened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) kind: ContentType,
    pub(super) length: usize,
}

// === impl Frame ===

impl Frame {
    /// Finds the first record of `received`; none until all of it is there.
    pub(super) fn first(received: &[u8]) -> Result<Option<Self>, Error> {
        let [kind, _, _, high, low, body @ ..] = received else { return Ok(None) };
        if *kind != OUTER_TYPE {
            return Err(InvalidMessage::UnexpectedMessage("a record is not encrypted").into());
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > MAX_CONTENT_BYTES + MAX_EXPANSION_BYTES {
            return Err(Error::PeerSentOversizedRecord);
        }
        let opened = length.checked_sub(TAG_BYTES).ok_or(Error::DecryptError)?;
        Ok((body.len() >= length).then_some(Self { length: HEADER_BYTES + length, opened }))
    }
}

// === impl Opener ===

impl Opener {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        Keys::new(secrets).map(Self)
    }

    /// Opens `record`, which is as long as its frame says, into `out`, which is as long as its
    /// frame says.
    pub(super) fn open(&mut self, record: &[u8], out: &mut [u8]) -> Result<Content, Error> {
        let body = record.get(HEADER_BYTES..).ok_or(Error::DecryptError)?;
        let (sealed, tag) = body.split_at_checked(out.len()).ok_or(Error::DecryptError)?;
        let nonce = self.0.next_nonce()?;
        let aad = Aad::from(make_tls13_aad(body.len()));
        let opened = self.0.key.open_separate_gather(nonce, aad, sealed, tag, out);
        opened.map_err(|_| Error::DecryptError)?;
        // The type is the last byte that is not padding.
        let length = out.iter().rposition(|byte| *byte != 0);
        let length = length.ok_or(PeerMisbehaved::IllegalTlsInnerPlaintext)?;
        if length > MAX_CONTENT_BYTES {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok(Content { kind: ContentType::from(out[length]), length })
    }
}

// === impl Sealer ===

impl Sealer {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        Keys::new(secrets).map(Self)
    }

    /// Returns the number of records that the key has sealed.
    pub(super) fn records(&self) -> u64 {
        self.0.sequence
    }

    /// Appends a record with `content`, of at most [`MAX_CONTENT_BYTES`], to `out`.
    pub(super) fn seal(
        &mut self,
        kind: ContentType,
        content: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        let body = content.len() + 1 + TAG_BYTES;
        let length = u16::try_from(body).map_err(|_| Error::EncryptError)?;
        out.reserve(HEADER_BYTES + body);
        out.put_u8(OUTER_TYPE);
        out.put_slice(&OUTER_VERSION);
        out.put_u16(length);
        let start = out.len();
        out.put_slice(content);
        out.put_u8(u8::from(kind));
        let nonce = self.0.next_nonce()?;
        let aad = Aad::from(make_tls13_aad(body));
        let tag = self.0.key.seal_in_place_separate_tag(nonce, aad, &mut out[start..]);
        out.put_slice(tag.map_err(|_| Error::EncryptError)?.as_ref());
        Ok(())
    }
}

// === impl Keys ===

impl Keys {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv): (&'static Algorithm, AeadKey, Iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher without keys to extract".to_owned())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref());
        let key = key.map_err(|_| Error::General("a key of the wrong length".to_owned()))?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// Returns the nonce of the next record: each only once.
    fn next_nonce(&mut self) -> Result<Nonce, Error> {
        let nonce = RecordNonce::new(&self.iv, self.sequence);
        self.sequence = self.sequence.checked_add(1).ok_or(Error::EncryptError)?;
        Ok(Nonce::assume_unique_for_key(nonce.0))
    }
}
