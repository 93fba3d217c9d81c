//! The handshake: a `rustls` connection that owns no buffers, driven over a socket.

use std::{io, sync::Arc};

use bytes::{Buf, BytesMut};
use rustls::{
    ClientConfig, CommonState, Error, ExtractedSecrets, ServerConfig, SupportedCipherSuite,
    client::{ClientConnectionData, UnbufferedClientConnection},
    pki_types::{CertificateDer, ServerName},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::session::Secrets;

/// Read of a handshake, in bytes: a flight with certificates.
const FLIGHT_BYTES: usize = 8 << 10;

/// What a finished handshake leaves.
pub(super) struct Established {
    pub(super) secrets: Secrets,
    pub(super) keys: ExtractedSecrets,
    pub(super) suite: SupportedCipherSuite,
    pub(super) received: Received,
    pub(super) peer_certificates: Option<Vec<CertificateDer<'static>>>,
}

/// What came with the peer's last flight and belongs to the application.
#[derive(Default)]
pub(super) struct Received {
    /// Records that nobody has opened yet.
    pub(super) records: BytesMut,
    /// Content of records that the handshake has opened.
    pub(super) content: BytesMut,
    /// Whether nothing comes after it.
    pub(super) end: bool,
}

/// A connection of either side.
trait Handshake {
    type Data;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn common(&self) -> &CommonState;
}

/// What a handshake needs next.
enum Step {
    Again,
    Send,
    Receive,
    Done,
}

// === impl Handshake ===

impl Handshake for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Handshake for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// Performs the client's handshake.
pub(super) async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: &mut TcpStream,
) -> io::Result<Established> {
    let connection = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
    let mut connection = Box::new(connection);
    let received = drive(&mut *connection, socket).await?;
    let peer_certificates = connection.peer_certificates().map(<[_]>::to_vec);
    let (keys, kernel) = connection.dangerous_into_kernel_connection().map_err(invalid)?;
    let suite = kernel.negotiated_cipher_suite();
    let secrets = Secrets::Client(kernel);
    Ok(Established { secrets, keys, suite, received, peer_certificates })
}

/// Performs the server's handshake.
pub(super) async fn accept(
    config: Arc<ServerConfig>,
    socket: &mut TcpStream,
) -> io::Result<Established> {
    let mut connection = Box::new(UnbufferedServerConnection::new(config).map_err(invalid)?);
    let received = drive(&mut *connection, socket).await?;
    let peer_certificates = connection.peer_certificates().map(<[_]>::to_vec);
    let (keys, kernel) = connection.dangerous_into_kernel_connection().map_err(invalid)?;
    let suite = kernel.negotiated_cipher_suite();
    let secrets = Secrets::Server(kernel);
    Ok(Established { secrets, keys, suite, received, peer_certificates })
}

/// Wraps an error of TLS as `tokio-rustls` does, for those who look inside.
pub(super) fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn drive(connection: &mut impl Handshake, socket: &mut TcpStream) -> io::Result<Received> {
    let mut received = Received::default();
    let mut flight = Vec::new();
    loop {
        match step(connection, &mut received, &mut flight) {
            Ok(Step::Again) => {}
            Ok(Step::Send) => {
                socket.write_all(&flight).await?;
                flight.clear();
            }
            Ok(Step::Receive) => {
                received.records.reserve(FLIGHT_BYTES);
                if socket.read_buf(&mut received.records).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(Step::Done) => return Ok(received),
            Err(error) => {
                // What the connection still says is its complaint. Asked for more it would look at the
                // same records again, and complain again.
                while connection.common().wants_write()
                    && let Ok(Step::Again) = step(connection, &mut received, &mut flight)
                {
                }
                // The peer may be gone; what went wrong first is what counts.
                let _ = socket.write_all(&flight).await;
                return Err(invalid(error));
            }
        }
    }
}

/// Advances the handshake; `flight` is what there is to send.
fn step(
    connection: &mut impl Handshake,
    received: &mut Received,
    flight: &mut Vec<u8>,
) -> Result<Step, Error> {
    let UnbufferedStatus { mut discard, state, .. } = connection.process(&mut received.records);
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(mut message)) => {
            encode(&mut message, flight)?;
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Step::Send)
        }
        Ok(ConnectionState::ReadTraffic(mut records)) => {
            while let Some(record) = records.next_record() {
                let record = record?;
                received.content.extend_from_slice(record.payload);
                discard += record.discard;
            }
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Receive),
        Ok(ConnectionState::PeerClosed) => {
            received.end = true;
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(_) => Err(Error::HandshakeNotComplete),
        Err(error) => Err(error),
    };
    received.records.advance(discard);
    // A server may be allowed to send before the client is known.
    if matches!(step, Ok(Step::Done)) && connection.common().is_handshaking() {
        return Ok(Step::Receive);
    }
    step
}

fn encode<T>(message: &mut EncodeTlsData<'_, T>, flight: &mut Vec<u8>) -> Result<(), Error> {
    let start = flight.len();
    // The first call tells the size.
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        message.encode(&mut [])
    {
        flight.resize(start + required_size, 0);
        let encoded = message.encode(&mut flight[start..]);
        encoded.map_err(|_| Error::General("a message that has no size".to_owned()))?;
    }
    Ok(())
}
