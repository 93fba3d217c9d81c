//! Streams against each other and against a peer that is `rustls` alone.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use fairlead_component::clock::Clock;
use rustls::{AlertDescription, Error, HandshakeKind, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;
use crate::tls::{Revocations, TlsConfigs, server_name, tests::pki::TestCa};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const DESK: &str = "spiffe://cluster.local/ns/shop/sa/desk";

/// Address by which the client knows the server's sessions.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// More than every buffer on the way holds.
const BULK_BYTES: usize = 20 << 20;

/// Configurations of two workloads that trust each other.
pub(in crate::hbone) struct Pair {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Pair {
    pub(in crate::hbone) fn new() -> Self {
        let ca = TestCa::new();
        let configs =
            |id| TlsConfigs::new(&ca.svid(id), &Clock::system(), &Revocations::none()).unwrap();
        let client = configs(CART).client(&[DESK.parse().unwrap()]);
        Self { client, server: configs(DESK).server() }
    }

    /// Returns the configurations of the client and of the server.
    pub(in crate::hbone) fn configs(self) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        (self.client, self.server)
    }

    /// Returns both ends of a stream.
    pub(in crate::hbone) async fn streams(self) -> (Stream, Secured) {
        let (client, server) = sockets().await;
        let connected = connect(self.client, server_name(PEER), client);
        let (client, server) = tokio::join!(connected, accept(self.server, server));
        (client.unwrap().stream, server.unwrap())
    }

    /// Returns a stream to a server that is not ours.
    async fn with_other_server(self, tickets: usize) -> (Stream, TlsStream<TcpStream>) {
        let mut config = ServerConfig::clone(&self.server);
        config.send_tls13_tickets = tickets;
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
        let (client, server) = sockets().await;
        let connected = connect(self.client, server_name(PEER), client);
        let accepted = TlsAcceptor::from(Arc::new(config)).accept(server);
        let (client, server) = tokio::join!(connected, accepted);
        (client.unwrap().stream, server.unwrap())
    }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// Bytes in which a piece that is missing or in the wrong place shows.
fn bulk() -> Vec<u8> {
    (0..BULK_BYTES as u64 / 8).flat_map(u64::to_be_bytes).collect()
}

/// Sends `data` and says farewell.
async fn send_all(mut stream: impl AsyncWriteExt + Unpin, data: &[u8]) {
    stream.write_all(data).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn receive_all(mut stream: impl AsyncReadExt + Unpin) -> Vec<u8> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    received
}

/// Returns the TLS error inside `error`.
fn tls_error(error: &io::Error) -> &Error {
    error.get_ref().and_then(|e| e.downcast_ref()).unwrap()
}

#[tokio::test]
async fn bytes_pass_both_ways_at_once_to_the_farewell() {
    let (client, server) = Pair::new().streams().await;
    assert!(server.peer_certificates.is_some());
    let (client_read, client_write) = tokio::io::split(client);
    let (server_read, server_write) = tokio::io::split(server.stream);
    let data = bulk();
    let ((), (), at_client, at_server) = tokio::join!(
        send_all(client_write, &data),
        send_all(server_write, &data),
        receive_all(client_read),
        receive_all(server_read),
    );
    assert!(at_client == data && at_server == data);
}

#[tokio::test]
async fn small_reads_get_every_byte_of_large_records() {
    let (mut client, server) = Pair::new().streams().await;
    let mut server = server.stream;
    let data = &bulk()[..40_000];
    client.write_all(data).await.unwrap();
    client.flush().await.unwrap();
    let mut received = vec![0; data.len()];
    for piece in received.chunks_mut(7) {
        server.read_exact(piece).await.unwrap();
    }
    assert!(received == data);
}

#[tokio::test]
async fn tickets_and_new_keys_of_another_implementation_do_not_disturb() {
    let (mut client, mut server) = Pair::new().with_other_server(4).await;
    let data = bulk();
    for _ in 0..3 {
        server.get_mut().1.refresh_traffic_keys().unwrap();
        server.write_all(b"after a new key").await.unwrap();
        server.flush().await.unwrap();
        let mut received = [0; 15];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"after a new key");
    }
    let ((), received) = tokio::join!(send_all(client, &data), receive_all(server));
    assert!(received == data);
}

#[tokio::test]
async fn a_key_is_replaced_before_it_has_sealed_too_much() {
    let (mut client, server) = Pair::new().with_other_server(0).await;
    client.limit_key(100);
    let data = bulk();
    let ((), received) = tokio::join!(send_all(client, &data), receive_all(server));
    assert!(received == data);
}

#[tokio::test]
async fn an_end_without_farewell_is_an_error_after_the_bytes_before_it() {
    let (mut client, server) = Pair::new().streams().await;
    let mut server = server.stream;
    // The tickets come before it: left unread, they would make the end a reset.
    server.write_all(b"?").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'?');
    client.write_all(b"half a story").await.unwrap();
    client.flush().await.unwrap();
    drop(client);
    let mut received = Vec::new();
    let error = server.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(received, b"half a story");
}

#[tokio::test]
async fn what_is_not_from_the_peer_is_refused_and_the_peer_told() {
    type Forge = fn(&mut Vec<u8>);
    let cases: [(&str, Forge, AlertDescription); 4] = [
        ("a flipped bit", |record| record[9] ^= 1, AlertDescription::BadRecordMac),
        (
            "no room for a tag",
            |r| *r = vec![23, 3, 3, 0, 3, 1, 2, 3],
            AlertDescription::BadRecordMac,
        ),
        ("too long", |r| *r = vec![23, 3, 3, 0x41, 1], AlertDescription::RecordOverflow),
        ("plaintext", |r| *r = vec![21, 3, 3, 0, 2, 1, 0], AlertDescription::UnexpectedMessage),
    ];
    for (name, forge, alert) in cases {
        let (mut client, mut server) = Pair::new().with_other_server(0).await;
        let (socket, connection) = server.get_mut();
        io::Write::write_all(&mut connection.writer(), b"hello").unwrap();
        let mut record = Vec::new();
        connection.write_tls(&mut record).unwrap();
        forge(&mut record);
        socket.write_all(&record).await.unwrap();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{name}");
        let again = client.read_u8().await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::InvalidData, "{name}: no byte of it comes later");
        let after = client.write_u8(1).await.unwrap_err();
        assert_eq!(after.kind(), ErrorKind::BrokenPipe, "{name}: nothing follows the alert");
        let told = server.read_u8().await.unwrap_err();
        assert_eq!(*tls_error(&told), Error::AlertReceived(alert), "{name}");
    }
}

#[tokio::test]
async fn a_peer_that_sends_nothing_for_ever_is_cut_off() {
    let (mut client, mut server) = Pair::new().with_other_server(0).await;
    let (socket, connection) = server.get_mut();
    let mut records = Vec::new();
    for _ in 0..100 {
        connection.refresh_traffic_keys().unwrap();
        connection.write_tls(&mut records).unwrap();
    }
    socket.write_all(&records).await.unwrap();
    let error = client.read_u8().await.unwrap_err();
    assert!(matches!(tls_error(&error), Error::PeerMisbehaved(_)), "{error}");
}

#[tokio::test]
async fn a_record_that_is_full_of_messages_is_not_worked_through() {
    /// The shortest ticket: good for a minute, one byte long.
    const TICKET: [u8; 18] = [4, 0, 0, 14, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 1, 0xaa, 0, 0];
    for (tickets, refused) in [(20, false), (100, true)] {
        let (mut client, server) = Pair::new().streams().await;
        let mut server = server.stream;
        server.write_all(b"x").await.unwrap();
        server.send_messages(&TICKET.repeat(tickets));
        server.write_all(b"y").await.unwrap();
        server.flush().await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
        match client.read_u8().await {
            Ok(byte) => assert!(byte == b'y' && !refused, "{tickets}"),
            Err(error) => {
                let too_much = matches!(tls_error(&error), Error::PeerMisbehaved(_));
                assert!(too_much && refused, "{tickets}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_message_in_pieces_has_nothing_in_between() {
    let (mut client, server) = Pair::new().streams().await;
    let mut server = server.stream;
    server.send_messages(&[4, 0, 0, 14, 0, 0]);
    server.shutdown().await.unwrap();
    let error = client.read_u8().await.unwrap_err();
    assert!(matches!(tls_error(&error), Error::PeerMisbehaved(_)), "{error}");
}

#[tokio::test]
async fn nothing_is_sent_after_a_farewell_and_bytes_still_come_in() {
    let (mut client, server) = Pair::new().streams().await;
    let mut server = server.stream;
    client.shutdown().await.unwrap();
    assert_eq!(client.write_u8(1).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    server.write_u8(7).await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 7);
}

#[tokio::test]
async fn a_client_that_is_refused_learns_why() {
    let (ours, stranger) = (Pair::new(), Pair::new());
    let (client, server) = sockets().await;
    let config = rustls::ClientConfig::clone(&stranger.client);
    let connected = async {
        // The server's certificate is refused first, and the server is told.
        connect(Arc::new(config), server_name(PEER), client).await.map(|_| ())
    };
    let (client, server) = tokio::join!(connected, accept(ours.server, server));
    let (client, server) = (client.unwrap_err(), server.map(|_| ()).unwrap_err());
    assert!(matches!(tls_error(&client), Error::InvalidCertificate(_)), "{client}");
    assert!(matches!(tls_error(&server), Error::AlertReceived(_)), "{server}");
}

#[tokio::test]
async fn a_stream_at_rest_holds_no_buffer() {
    let (mut client, server) = Pair::new().streams().await;
    let mut server = server.stream;
    let data = &bulk()[..1 << 20];
    let mut received = vec![0; data.len()];
    let (sent, read) = tokio::join!(
        async {
            client.write_all(data).await?;
            client.flush().await
        },
        server.read_exact(&mut received)
    );
    sent.unwrap();
    read.unwrap();
    assert_eq!((client.buffered(), server.buffered()), (0, 0));
}

#[tokio::test]
async fn a_second_stream_resumes_the_session_of_the_first() {
    let Pair { client, server } = Pair::new();
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (client_socket, server_socket) = sockets().await;
        let connected = connect(client.clone(), server_name(PEER), client_socket);
        let accepted = TlsAcceptor::from(server.clone()).accept(server_socket);
        let (connected, accepted) = tokio::join!(connected, accepted);
        let (mut ours, mut theirs) = (connected.unwrap(), accepted.unwrap());
        assert_eq!(theirs.get_ref().1.handshake_kind(), Some(expected));
        let certificates = ours.peer_certificates.as_deref().map(<[_]>::len);
        assert_eq!(certificates, Some(1), "{expected:?}");
        // The ticket for the next one comes ahead of the first byte.
        theirs.write_all(b"x").await.unwrap();
        theirs.flush().await.unwrap();
        assert_eq!(ours.stream.read_u8().await.unwrap(), b'x');
    }
}

#[tokio::test]
async fn who_sends_nonsense_is_told_once() {
    const HELLO_WITHOUT_BODY: &[u8] = &[0x16, 3, 1, 0, 4, 1, 0, 0, 0];
    const HELLO_OF_ZEROES: &[u8] = &[0x16, 3, 1, 0, 10, 1, 0, 0, 6, 0, 0, 0, 0, 0, 0];
    const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2];
    for nonsense in [HELLO_WITHOUT_BODY, HELLO_OF_ZEROES] {
        let (mut client, server) = sockets().await;
        client.write_all(nonsense).await.unwrap();
        let accepted = accept(Pair::new().server, server).await;
        assert!(matches!(tls_error(&accepted.err().unwrap()), Error::InvalidMessage(_)));
        let told = receive_all(client).await;
        assert!(told.len() == ALERT.len() + 1 && told.starts_with(ALERT), "{told:x?}");
    }
}
