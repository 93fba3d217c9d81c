//! Days of certificates, and hours without a CA, in simulated time: what two nodes that talk to each
//! other notice of it.

use std::{collections::HashSet, io, sync::Mutex};

use tracing::subscriber::DefaultGuard;

use super::*;
use crate::{
    identity::schedule::RETRY_CAP,
    tls::{HandshakeFailure, tests::wire::handshake},
};

const TWO_MINUTES: Duration = Duration::from_mins(2);

/// What is logged while it lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Returns how many lines have this level.
    fn count(&self, level: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.split_whitespace().nth(1) == Some(level)).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a connection from a pod of one node to a pod of another.
fn connect(client: &TlsConfigs, server: &TlsConfigs) -> Result<(), HandshakeFailure> {
    let outcome = handshake(client.client(&[cart()]), server.server());
    outcome.client_result.as_ref().map_err(HandshakeFailure::from)?;
    outcome.server_result.as_ref().map_err(HandshakeFailure::from)?;
    // A session may be an old one.
    let (of_client, of_server) =
        (outcome.server.peer_certificates(), outcome.client.peer_certificates());
    server.check_client(of_client).map_err(|error| HandshakeFailure::from(&error))?;
    let checked = client.check_server(of_server, &[cart()]);
    checked.map(drop).map_err(|error| HandshakeFailure::from(&error))
}

#[tokio::test(start_paused = true)]
async fn in_a_day_of_certificates_of_two_minutes_no_connection_fails() {
    let authority = TestAuthority::new(TWO_MINUTES);
    let (one, two) = (authority.store(), authority.store());
    let (client, server) = (one.acquire(&desk()), two.acquire(&cart()));
    tokio::join!(client.wait_ready(), server.wait_ready());
    let end = Instant::now() + 24 * HOUR;
    let mut serials = HashSet::new();
    while Instant::now() < end {
        let (client, server) = (client.current().unwrap(), server.current().unwrap());
        let now = authority.clock.now();
        assert!(now < client.not_after() && now < server.not_after());
        // A handshake takes long beside the rest; one in four rotations has one.
        let rotated = two.certificates()[0].serial.clone().is_some_and(|s| serials.insert(s));
        if rotated && serials.len().is_multiple_of(4) {
            assert_eq!(connect(&client, &server), Ok(()), "after {}", serials.len());
        }
        sleep(Duration::from_secs(15)).await;
    }
    // Half of the backdated three minutes, less up to a twentieth, from a minute before issuance.
    let day = 24 * 60;
    assert!((day..6 * day).contains(&serials.len()), "{}", serials.len());
}

#[tokio::test(start_paused = true)]
async fn without_a_ca_certificates_serve_to_their_end_and_then_nothing_does() {
    let (log, _guard) = Log::capture();
    let authority = TestAuthority::new(HOUR);
    let (one, two) = (authority.store(), authority.store());
    let (client, server) = (one.acquire(&desk()), two.acquire(&cart()));
    let (first, answering) = tokio::join!(client.wait_ready(), server.wait_ready());
    let connects = || connect(&client.current().unwrap(), &server.current().unwrap());
    authority.down.store(true, SeqCst);

    // Renewals fail from half life on; a person needs to know at three quarters.
    sleep(43 * MINUTE).await;
    assert_eq!(connects(), Ok(()));
    assert!(log.count("WARN") > 0);
    assert_eq!(log.count("ERROR"), 0);
    sleep(6 * MINUTE).await;
    assert_eq!(connects(), Ok(()));
    assert!(log.count("ERROR") > 0);

    sleep(10 * MINUTE).await;
    assert!(Arc::ptr_eq(&first, &client.current().unwrap()));
    assert!(one.certificates()[0].last_error.is_some());
    assert_eq!(connects(), Ok(()));
    sleep(MINUTE + Duration::from_secs(1)).await;
    let expired = NoCertificate::Expired { identity: desk(), not_after: first.not_after() };
    assert_eq!(client.current().unwrap_err(), expired);
    assert_eq!(connect(&first, &answering), Err(HandshakeFailure::Expired), "nobody believes it");

    authority.down.store(false, SeqCst);
    let both = async { tokio::join!(client.wait_ready(), server.wait_ready()) };
    let (again, _) = timeout(RETRY_CAP, both).await.unwrap();
    assert!(again.not_after() > first.not_after());
    assert_eq!(one.certificates()[0].last_error, None);
    assert_eq!(connects(), Ok(()));
}
