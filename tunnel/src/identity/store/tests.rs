mod lifetimes;

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::identity::{CaError, LocalCa, Svid};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// A CA that can be switched off, hang, or issue to the wrong workload.
struct TestAuthority {
    ca: LocalCa,
    clock: Clock,
    ttl: Duration,
    requests: AtomicU32,
    down: AtomicBool,
    hangs: AtomicBool,
    confused: AtomicBool,
    _dir: TempDir,
}

impl TestAuthority {
    fn new(ttl: Duration) -> Arc<Self> {
        let dir = TempDir::new().unwrap();
        Arc::new(Self {
            ca: LocalCa::open_or_create(dir.path(), &cart().trust_domain).unwrap(),
            clock: simulated_clock(),
            ttl,
            requests: AtomicU32::default(),
            down: AtomicBool::default(),
            hangs: AtomicBool::default(),
            confused: AtomicBool::default(),
            _dir: dir,
        })
    }

    fn store(self: &Arc<Self>) -> IdentityStore {
        let clock = self.clock.clone();
        IdentityStore::new(Arc::clone(self) as _, clock, Revocations::none(), Handle::current())
    }

    fn requests(&self) -> u32 {
        self.requests.load(SeqCst)
    }
}

impl CertificateAuthority for TestAuthority {
    fn issue<'a>(&'a self, identity: &'a Identity) -> BoxFuture<'a, Result<Svid, CaError>> {
        Box::pin(async move {
            self.requests.fetch_add(1, SeqCst);
            if self.hangs.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            if self.down.load(SeqCst) {
                return Err(CaError::RootExpired(identity.trust_domain.clone()));
            }
            let other = desk();
            let subject = if self.confused.load(SeqCst) { &other } else { identity };
            self.ca.issue(subject, self.ttl, self.clock.now())
        })
    }
}

/// A wall clock that moves with tokio's paused time.
fn simulated_clock() -> Clock {
    let (start, wall) = (Instant::now(), SystemTime::now());
    Clock::new(move || wall + start.elapsed())
}

fn cart() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

fn desk() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/desk".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn pods_of_one_identity_share_a_certificate() {
    let authority = TestAuthority::new(HOUR);
    let store = authority.store();
    let (one, two, other) =
        (store.acquire(&cart()), store.acquire(&cart()), store.acquire(&desk()));
    assert_eq!(one.current().unwrap_err(), NoCertificate::Pending(cart()));
    assert!(Arc::ptr_eq(&one.wait_ready().await, &two.wait_ready().await));
    assert_eq!(other.wait_ready().await.identity(), &desk());
    assert_eq!(authority.requests(), 2);

    let infos = store.certificates();
    let identities: Vec<_> = infos.iter().map(|info| &info.identity).collect();
    assert_eq!(identities, [&cart(), &desk()]);
    assert!(infos.iter().all(|info| info.serial.is_some() && info.last_error.is_none()));
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_forgotten_with_its_last_handle() {
    let authority = TestAuthority::new(HOUR);
    let store = authority.store();
    let one = store.acquire(&cart());
    let two = one.clone();
    one.wait_ready().await;
    drop(one);
    assert_eq!(store.certificates().len(), 1);
    drop(two);
    assert!(store.certificates().is_empty());
    assert!(store.shared.entries().is_empty());
    sleep(2 * HOUR).await;
    assert_eq!(authority.requests(), 1, "nothing renews a forgotten identity");

    store.acquire(&cart()).wait_ready().await;
    assert_eq!(authority.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_keeps_its_configuration_across_renewals() {
    let authority = TestAuthority::new(HOUR);
    let handle = authority.store().acquire(&cart());
    let old = handle.wait_ready().await;
    sleep(HOUR / 2 + MINUTE).await;
    let new = handle.current().unwrap();
    assert!(!Arc::ptr_eq(&old, &new));
    assert!(new.not_after() > old.not_after());
}

#[tokio::test(start_paused = true)]
async fn requests_to_a_ca_that_is_down_back_off() {
    let authority = TestAuthority::new(HOUR);
    authority.down.store(true, SeqCst);
    let handle = authority.store().acquire(&cart());
    sleep(Duration::from_millis(500)).await;
    assert_eq!(authority.requests(), 1);
    assert!(matches!(handle.current(), Err(NoCertificate::Failed { .. })));
    sleep(MINUTE).await;
    assert!((5..9).contains(&authority.requests()), "{}", authority.requests());
    let before = authority.requests();
    sleep(HOUR).await;
    let hourly = authority.requests() - before;
    assert!((24..40).contains(&hourly), "{hourly}");
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_hangs_is_asked_again() {
    let authority = TestAuthority::new(HOUR);
    authority.hangs.store(true, SeqCst);
    let handle = authority.store().acquire(&cart());
    sleep(Duration::from_secs(5)).await;
    authority.hangs.store(false, SeqCst);
    timeout(MINUTE, handle.wait_ready()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_workload_is_not_used() {
    let authority = TestAuthority::new(HOUR);
    authority.confused.store(true, SeqCst);
    let handle = authority.store().acquire(&cart());
    sleep(Duration::from_millis(500)).await;
    let error = handle.current().unwrap_err().to_string();
    assert!(error.contains(&desk().to_string()), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_arrives_expired_is_not_used() {
    let authority = TestAuthority::new(Duration::ZERO);
    let handle = authority.store().acquire(&cart());
    sleep(Duration::from_millis(500)).await;
    let error = handle.current().unwrap_err().to_string();
    assert!(error.contains("already expired"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_failed_is_made_again_at_once_when_the_ca_may_be_back() {
    let authority = TestAuthority::new(HOUR);
    authority.down.store(true, SeqCst);
    let store = authority.store();
    let handle = store.acquire(&cart());
    // The wait between two requests is long by then.
    sleep(HOUR).await;
    authority.down.store(false, SeqCst);
    store.retry();
    timeout(Duration::from_millis(1), handle.wait_ready()).await.unwrap();
    let before = authority.requests();
    store.retry();
    sleep(MINUTE).await;
    assert_eq!(authority.requests(), before, "what went well is not asked for again");
}

#[tokio::test(start_paused = true)]
async fn identities_are_settled_by_certificates_and_by_answers_but_not_by_silence() {
    let authority = TestAuthority::new(HOUR);
    authority.hangs.store(true, SeqCst);
    let store = authority.store();
    store.wait_settled().await;
    let _pods = [store.acquire(&cart()), store.acquire(&desk())];
    assert!(timeout(MINUTE / 2, store.wait_settled()).await.is_err(), "nothing was answered");
    authority.hangs.store(false, SeqCst);
    timeout(MINUTE, store.wait_settled()).await.unwrap();

    authority.down.store(true, SeqCst);
    let refused = store.acquire(&"spiffe://cluster.local/ns/shop/sa/other".parse().unwrap());
    timeout(MINUTE, store.wait_settled()).await.unwrap();
    assert!(matches!(refused.current(), Err(NoCertificate::Failed { .. })));
}
