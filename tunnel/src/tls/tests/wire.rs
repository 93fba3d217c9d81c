//! Handshakes in memory, with our configurations and with peers that break the rules.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, ServerConfig,
    ServerConnection, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::pki::Signed;
use crate::tls::server_name;

/// Address of the peer in all handshakes.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 3));

/// What a hasty client sends before it knows whether it is welcome.
pub(super) const EARLY_REQUEST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How a handshake ended on both sides.
pub(crate) struct Outcome {
    pub(crate) client: Connection,
    pub(crate) server: Connection,
    pub(crate) client_result: Result<(), Error>,
    pub(crate) server_result: Result<(), Error>,
}

/// Runs a handshake, with a client that sends a request as soon as TLS lets it.
pub(crate) fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    let mut client = ClientConnection::new(client, server_name(PEER)).unwrap();
    client.writer().write_all(EARLY_REQUEST).unwrap();
    let mut outcome = Outcome {
        client: client.into(),
        server: ServerConnection::new(server).unwrap().into(),
        client_result: Ok(()),
        server_result: Ok(()),
    };
    loop {
        let Outcome { client, server, client_result, server_result } = &mut outcome;
        let sent = deliver(client, server, server_result);
        let answered = deliver(server, client, client_result);
        if !sent && !answered {
            return outcome;
        }
    }
}

/// Hands what `from` has to say to `to`, unless that has failed; tells whether there was anything.
fn deliver(from: &mut Connection, to: &mut Connection, result: &mut Result<(), Error>) -> bool {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    if result.is_ok() {
        *result = feed(to, &bytes);
    }
    !bytes.is_empty()
}

/// Hands raw bytes to a connection.
pub(super) fn feed(to: &mut Connection, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// Returns the decrypted bytes that `connection` would hand to HTTP/2.
pub(super) fn plaintext(connection: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Ends with an error when the connection is still open.
    let _ = connection.reader().read_to_end(&mut bytes);
    bytes
}

/// Returns a client that trusts everybody and shows `chain`, if any.
pub(super) fn reckless_client(
    identity: Option<(Vec<CertificateDer<'static>>, &Signed)>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustEverybody));
    let mut config = match identity {
        Some((chain, signed)) => {
            builder.with_client_auth_cert(chain, signed.private_key()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Returns a server that asks for no certificate and shows `chain`.
pub(super) fn reckless_server(
    chain: Vec<CertificateDer<'static>>,
    signed: &Signed,
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, signed.private_key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.into()
}

/// Returns the first flight of a client that knows nothing newer than TLS 1.2.
pub(super) fn tls12_client_hello() -> Vec<u8> {
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]);
    // No session, one suite (ECDHE-ECDSA with AES-128-GCM), no compression.
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions: &[u8] = &[
        0x00, 0x0a, 0, 4, 0, 2, 0x00, 0x1d, // X25519
        0x00, 0x0d, 0, 4, 0, 2, 0x04, 0x03, // ECDSA with SHA-256
        0x00, 0x0b, 0, 2, 1, 0, // uncompressed points
    ];
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    [&[0x16, 0x03, 0x01, 0, length + 4, 0x01, 0, 0, length], hello.as_slice()].concat()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[derive(Debug)]
struct TrustEverybody;

impl ServerCertVerifier for TrustEverybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
