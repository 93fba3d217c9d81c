//! An established TLS 1.3 connection without its socket: bytes to records and back, and the few
//! messages that come after the handshake.

use bytes::BytesMut;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets,
    HandshakeType, InvalidMessage, PeerMisbehaved, SupportedCipherSuite,
    client::ClientConnectionData, kernel::KernelConnection, server::ServerConnectionData,
};

use super::record::{Content, MAX_CONTENT_BYTES, Opener, Sealer};
use crate::limits::{MAX_FRUITLESS, MAX_MESSAGE_BYTES};

/// Header of a handshake message, in bytes: type and length.
const MESSAGE_HEADER_BYTES: usize = 4;

/// Level that every alert of ours but the last farewell has.
const FATAL: u8 = 2;

/// Level of a farewell.
const WARNING: u8 = 1;

/// Both directions of a connection.
pub(super) struct Session {
    secrets: Secrets,
    opener: Opener,
    sealer: Sealer,
    /// Records that one key may seal.
    pub(super) key_limit: u64,
    /// Whether the peer has asked for a new key.
    update_owed: bool,
    /// The start of a handshake message whose end has not come yet.
    message: Vec<u8>,
    fruitless: u8,
    peer_closed: bool,
    closed: bool,
}

/// What makes new keys.
pub(super) enum Secrets {
    /// Of a client.
    Client(KernelConnection<ClientConnectionData>),
    /// Of a server.
    Server(KernelConnection<ServerConnectionData>),
}

// === impl Session ===

impl Session {
    /// Goes on with what a handshake has agreed on; `peer_closed` if the peer has said farewell.
    pub(super) fn new(
        secrets: Secrets,
        keys: ExtractedSecrets,
        suite: SupportedCipherSuite,
        peer_closed: bool,
    ) -> Result<Self, Error> {
        let suite = suite.tls13().ok_or(Error::HandshakeNotComplete)?;
        Ok(Self {
            secrets,
            opener: Opener::new(keys.rx)?,
            sealer: Sealer::new(keys.tx)?,
            // One is left to announce the next key.
            key_limit: suite.common.confidentiality_limit.saturating_sub(1),
            update_owed: false,
            message: Vec::new(),
            fruitless: 0,
            peer_closed,
            closed: false,
        })
    }

    /// Returns whether the peer has said that it sends no more.
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Returns whether the peer has been told that nothing more is sent.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Opens `record` into `out`, both as long as the record's frame says, and returns how many
    /// bytes at the start of `out` are for the application.
    pub(super) fn open(&mut self, record: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let Content { kind, length } = self.opener.open(record, out)?;
        if kind != ContentType::Handshake && !self.message.is_empty() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        if kind == ContentType::ApplicationData && length > 0 {
            self.fruitless = 0;
            return Ok(length);
        }
        self.count_fruitless()?;
        let content = &out[..length];
        if kind == ContentType::Alert {
            self.alert(content)?;
        } else if kind == ContentType::Handshake {
            self.message.extend_from_slice(content);
            self.messages()?;
        } else if kind != ContentType::ApplicationData {
            return Err(InvalidMessage::InvalidContentType.into());
        }
        Ok(0)
    }

    /// Appends `data` to `out` in as few records as it takes.
    pub(super) fn seal(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        for content in data.chunks(MAX_CONTENT_BYTES) {
            if self.update_owed || self.sealer.records() >= self.key_limit {
                self.update_key(out)?;
            }
            self.sealer.seal(ContentType::ApplicationData, content, out)?;
        }
        Ok(())
    }

    /// Appends a farewell to `out`, once.
    pub(super) fn close(&mut self, out: &mut BytesMut) -> Result<(), Error> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let farewell = [WARNING, u8::from(AlertDescription::CloseNotify)];
        self.sealer.seal(ContentType::Alert, &farewell, out)
    }

    /// Appends to `out` what the peer is told of its `error`, as the last word; nothing, if that has
    /// been said or the error is the peer's own word.
    pub(super) fn complain(&mut self, error: &Error, out: &mut BytesMut) -> Result<(), Error> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let Some(alert) = complaint(error) else { return Ok(()) };
        self.sealer.seal(ContentType::Alert, &[FATAL, u8::from(alert)], out)
    }

    /// Appends one record of handshake messages to `out`.
    #[cfg(test)]
    pub(super) fn send_messages(
        &mut self,
        messages: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        self.sealer.seal(ContentType::Handshake, messages, out)
    }

    fn count_fruitless(&mut self) -> Result<(), Error> {
        self.fruitless = self.fruitless.saturating_add(1);
        if self.fruitless > MAX_FRUITLESS {
            return Err(PeerMisbehaved::TooManyEmptyFragments.into());
        }
        Ok(())
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), Error> {
        let [_, description] = *content else {
            return Err(InvalidMessage::MessageTooShort.into());
        };
        let description = AlertDescription::from(description);
        if description == AlertDescription::CloseNotify {
            self.peer_closed = true;
            return Ok(());
        }
        // Announces a farewell and means nothing by itself; every other alert is the end.
        if description == AlertDescription::UserCanceled {
            return Ok(());
        }
        Err(Error::AlertReceived(description))
    }

    /// Handles the handshake messages that have come in whole.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other message is wrong here")]
    fn messages(&mut self) -> Result<(), Error> {
        while let [kind, a, b, c, rest @ ..] = &*self.message {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if length > MAX_MESSAGE_BYTES {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some(payload) = rest.get(..length) else { return Ok(()) };
            let last = rest.len() == length;
            match HandshakeType::from(*kind) {
                HandshakeType::NewSessionTicket => self.secrets.ticket(payload)?,
                HandshakeType::KeyUpdate if !last => {
                    return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                }
                HandshakeType::KeyUpdate => {
                    self.update_owed |= asks_for_update(payload)?;
                    self.opener = Opener::new(self.secrets.next_receiving()?)?;
                }
                _ => return Err(unexpected("a handshake message after the handshake")),
            }
            self.message.drain(..MESSAGE_HEADER_BYTES + length);
            self.count_fruitless()?;
        }
        Ok(())
    }

    /// Announces a new key to the peer and goes on with it.
    fn update_key(&mut self, out: &mut BytesMut) -> Result<(), Error> {
        const UPDATE_NOT_REQUESTED: [u8; 5] = [24, 0, 0, 1, 0];
        self.sealer.seal(ContentType::Handshake, &UPDATE_NOT_REQUESTED, out)?;
        self.sealer = Sealer::new(self.secrets.next_sending()?)?;
        self.update_owed = false;
        Ok(())
    }
}

// === impl Secrets ===

impl Secrets {
    fn next_receiving(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(connection) => connection.update_rx_secret(),
            Self::Server(connection) => connection.update_rx_secret(),
        }
    }

    fn next_sending(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(connection) => connection.update_tx_secret(),
            Self::Server(connection) => connection.update_tx_secret(),
        }
    }

    fn ticket(&mut self, payload: &[u8]) -> Result<(), Error> {
        match self {
            Self::Client(connection) => connection.handle_new_session_ticket(payload),
            Self::Server(_) => Err(unexpected("a session ticket from a client")),
        }
    }
}

fn asks_for_update(payload: &[u8]) -> Result<bool, Error> {
    match payload {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(InvalidMessage::InvalidKeyUpdate.into()),
    }
}

fn unexpected(what: &'static str) -> Error {
    InvalidMessage::UnexpectedMessage(what).into()
}

/// Returns the alert for an error of the peer; none for its own alert.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors at any time")]
fn complaint(error: &Error) -> Option<AlertDescription> {
    match error {
        Error::AlertReceived(_) => None,
        Error::DecryptError => Some(AlertDescription::BadRecordMac),
        Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
        Error::InvalidMessage(_) | Error::PeerMisbehaved(_) => {
            Some(AlertDescription::UnexpectedMessage)
        }
        _ => Some(AlertDescription::InternalError),
    }
}
