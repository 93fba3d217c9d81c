use std::{sync::Arc, time::Duration};

use mesh_api::{
    identity::{Identity, Namespace},
    proto::ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::IstioCertificateService as _,
    },
    workload::NodeName,
};
use prost_types::{Struct, Value, value::Kind};
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::sync::watch;
use tonic::{Code, Request, Status};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    super::{
        authorize::{Denied, IssuePolicy, Placement},
        service::CertificateService,
        sign::Subject,
    },
    pki::{TestClock, identity, request_for, uri},
};
use crate::{
    auth::{Caller, PodReference},
    telemetry::metrics::Metrics,
};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// Runs `CART` on n1, and nothing else anywhere.
#[derive(Debug)]
struct CartOnN1;

impl Placement for CartOnN1 {
    fn runs_on(&self, identity: &Identity, node: &NodeName) -> bool {
        identity.to_string() == CART && &*node.0 == "n1"
    }

    fn node_of(&self, namespace: &Namespace, pod: &PodReference) -> Option<NodeName> {
        let known = ("istio-system", "zt-1", "u1");
        ((namespace.as_str(), &*pod.name, &*pod.uid) == known).then(|| NodeName("n1".into()))
    }

    fn changes(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }
}

/// Runs whatever it is asked for on every node, once it is told to.
#[derive(Debug)]
struct Late(watch::Receiver<bool>);

impl Placement for Late {
    fn runs_on(&self, _: &Identity, _: &NodeName) -> bool {
        *self.0.borrow()
    }

    fn node_of(&self, _: &Namespace, _: &PodReference) -> Option<NodeName> {
        None
    }

    fn changes(&self) -> watch::Receiver<()> {
        let (sender, receiver) = watch::channel(());
        let mut told = self.0.clone();
        tokio::spawn(async move {
            while told.changed().await.is_ok() {
                sender.send_replace(());
            }
        });
        receiver
    }
}

struct Setting {
    service: CertificateService,
    _directory: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        Self::with(CartOnN1)
    }

    fn with(placement: impl Placement) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let service = CertificateService {
            authority: TestClock::new().open(directory.path()),
            policy: Arc::new(policy()),
            placement: Arc::new(placement),
            metrics: Arc::new(Metrics::new()),
        };
        Self { service, _directory: directory }
    }

    async fn create(
        &self,
        caller: Caller,
        impersonated: Option<&str>,
        csr_for: &str,
        seconds: i64,
    ) -> Result<IstioCertificateResponse, Status> {
        let key = KeyPair::generate().unwrap();
        let csr = request_for(&[uri(csr_for)]).serialize_request(&key).unwrap().pem().unwrap();
        let field = |identity: &str| {
            let value = Value { kind: Some(Kind::StringValue(identity.into())) };
            Struct { fields: [("ImpersonatedIdentity".to_owned(), value)].into() }
        };
        let metadata = impersonated.map(field);
        let mut request =
            Request::new(IstioCertificateRequest { csr, validity_duration: seconds, metadata });
        request.extensions_mut().insert(caller);
        self.service.create_certificate(request).await.map(tonic::Response::into_inner)
    }
}

fn policy() -> IssuePolicy {
    IssuePolicy {
        trust_domain: "cluster.local".parse().unwrap(),
        node_accounts: vec!["istio-system/ztunnel".parse().unwrap()],
    }
}

fn caller(account: &str, node: Option<&str>) -> Caller {
    let node = node.map(|node| NodeName(node.into()));
    Caller { account: account.parse().unwrap(), pod: None, node }
}

#[test]
fn a_node_proxy_may_have_the_identities_of_its_own_node_and_others_only_their_own() {
    let ztunnel = |node| caller("istio-system/ztunnel", node);
    let decide = |caller: &Caller, impersonated| policy().decide(caller, impersonated, &CartOnN1);
    assert_eq!(decide(&ztunnel(Some("n1")), Some(CART)), Ok(identity(CART)));
    let own = decide(&caller("shop/gateway", None), None).unwrap();
    assert_eq!(own.to_string(), "spiffe://cluster.local/ns/shop/sa/gateway");
    let refused = |caller: &Caller, impersonated| decide(caller, Some(impersonated)).unwrap_err();
    assert!(matches!(refused(&ztunnel(Some("n2")), CART), Denied::NotHere { .. }));
    assert!(matches!(refused(&ztunnel(None), CART), Denied::NoNode));
    assert!(matches!(refused(&caller("shop/cart", Some("n1")), CART), Denied::NotANode(_)));
    let other = "spiffe://cluster.local/ns/shop/sa/other";
    assert!(matches!(refused(&ztunnel(Some("n1")), other), Denied::NotHere { .. }));
    let foreign = "spiffe://elsewhere/ns/shop/sa/cart";
    assert!(matches!(refused(&ztunnel(Some("n1")), foreign), Denied::ForeignIdentity { .. }));
    for odd in
        ["", "spiffe://cluster.local/ns/shop/sa/cart/", "spiffe://cluster.local/ns/../sa/cart"]
    {
        assert!(matches!(refused(&ztunnel(Some("n1")), odd), Denied::Invalid(_)), "{odd}");
    }
}

#[test]
fn a_caller_whose_token_names_only_its_pod_is_where_that_runs() {
    let decide = |name: &str, uid: &str| {
        let pod = PodReference { name: name.to_owned(), uid: uid.to_owned() };
        let caller = Caller { pod: Some(pod), ..caller("istio-system/ztunnel", None) };
        policy().decide(&caller, Some(CART), &CartOnN1)
    };
    assert_eq!(decide("zt-1", "u1"), Ok(identity(CART)));
    assert_eq!(decide("zt-1", "of another time"), Err(Denied::NoNode));
    assert_eq!(decide("zt-2", "u1"), Err(Denied::NoNode));
}

#[tokio::test]
async fn the_response_is_the_leaf_then_the_roots() {
    let setting = Setting::new();
    let ztunnel = caller("istio-system/ztunnel", Some("n1"));
    let response = setting.create(ztunnel, Some(CART), CART, 3600).await.unwrap();
    let [leaf, roots] = &response.cert_chain[..] else { panic!("{response:?}") };
    assert_eq!(roots, setting.service.authority.bundle().roots_pem());
    let leaf = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "the subject is empty");
    assert!(format!("{:?}", names.value).contains(CART));
    let validity = leaf.validity();
    let life = validity.not_after.timestamp() - validity.not_before.timestamp();
    assert_eq!(life, 3600 + 60, "and a minute for clocks that are behind");
    assert!(!leaf.is_ca());
}

#[tokio::test]
async fn lifetimes_are_bounded() {
    let setting = Setting::new();
    let options = setting.service.authority.options();
    let day = Duration::from_hours(24);
    assert_eq!(options.ttl(0).unwrap(), day);
    assert_eq!(options.ttl(-1).unwrap(), day);
    assert_eq!(options.ttl(600).unwrap(), Duration::from_mins(10));
    assert_eq!(options.ttl(i64::MAX).unwrap(), day);
    let (key, subject) = (KeyPair::generate().unwrap(), Subject::Workload(identity(CART)));
    let (issued, _) = setting.service.authority.issue(&subject, &key, day * 10).unwrap();
    assert!(issued.not_after.duration_since(issued.not_before).unwrap() < day + day / 10);
    let short = Duration::from_secs(10);
    let (issued, _) = setting.service.authority.issue(&subject, &key, short).unwrap();
    assert!(issued.not_after.duration_since(issued.not_before).unwrap() <= short + short / 10);
    let ztunnel = caller("istio-system/ztunnel", Some("n1"));
    let refused = setting.create(ztunnel, Some(CART), CART, 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_a_while_for_the_news_of_its_pod() {
    let (tell, told) = watch::channel(false);
    let setting = Setting::with(Late(told));
    let ask = || setting.create(caller("istio-system/ztunnel", Some("n1")), Some(CART), CART, 0);
    let begun = tokio::time::Instant::now();
    let refused = ask().await.unwrap_err();
    assert!(refused.message().contains("node n1"), "{refused}");
    assert_eq!(begun.elapsed().as_secs(), 2);
    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tell.send_replace(true);
    };
    let (granted, ()) = tokio::join!(ask(), later);
    assert!(granted.is_ok(), "{granted:?}");
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn refusals_say_why_and_are_counted() {
    let setting = Setting::new();
    let ztunnel = |node| caller("istio-system/ztunnel", Some(node));
    let wrong_node = setting.create(ztunnel("n2"), Some(CART), CART, 0).await.unwrap_err();
    assert_eq!(wrong_node.code(), Code::Unauthenticated);
    assert!(wrong_node.message().contains("node n2"), "{wrong_node}");
    let other = "spiffe://cluster.local/ns/shop/sa/other";
    let other_csr = setting.create(ztunnel("n1"), Some(CART), other, 0).await.unwrap_err();
    assert_eq!(other_csr.code(), Code::InvalidArgument);
    let metrics = &setting.service.metrics;
    assert_eq!(metrics.ca.csr_count.get(), 2);
    assert_eq!(metrics.ca.authentication_failures.get(), 1);
    assert_eq!(metrics.ca.id_extraction_errors.get(), 1);
    assert_eq!(metrics.ca.issued.get(), 0);
}
