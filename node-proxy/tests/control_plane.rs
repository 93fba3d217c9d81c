//! The proxy and a control plane: discovery and certificates, over real connections.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails, fails the test")]

#[path = "control_plane/istiod.rs"]
mod istiod;
#[path = "control_plane/pki.rs"]
mod pki;
#[path = "control_plane/scene.rs"]
mod scene;

use std::time::{Duration, Instant};

use fairlead_tunnel::identity::NoCertificate;
use mesh_api::{
    proto::{
        discovery::Resource,
        security::Authorization,
        workload::{
            Address, NetworkAddress, Port, PortList, Service, TunnelProtocol, Workload,
            address::Type,
        },
    },
    xds_client::{ADDRESS_TYPE, AUTHORIZATION_TYPE},
};
use tokio::time::timeout;

use self::{
    istiod::{Asked, Conversation, SOON, resource},
    pki::Root,
    scene::{Scene, TTL},
};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn wire_workload(uid: &str, address: [u8; 4]) -> Workload {
    Workload {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        namespace: "shop".to_owned(),
        service_account: "cart".to_owned(),
        addresses: vec![address.to_vec().into()],
        ..Workload::default()
    }
}

fn address(name: &str, version: &str, content: Type) -> Resource {
    resource(ADDRESS_TYPE, name, version, &Address { r#type: Some(content) })
}

fn workload(uid: &str, at: [u8; 4], version: &str) -> Resource {
    address(uid, version, Type::Workload(wire_workload(uid, at)))
}

fn policy(name: &str) -> Resource {
    let content = Authorization {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        ..Authorization::default()
    };
    resource(AUTHORIZATION_TYPE, &format!("shop/{name}"), "1", &content)
}

/// Answers the first requests of a stream: no policies, and these addresses.
async fn answer_first(stream: &mut Conversation, addresses: Vec<Resource>) {
    for _ in 0..2 {
        stream.request().await;
    }
    stream.send((AUTHORIZATION_TYPE, "p1"), Vec::new(), &[]).await;
    stream.send((ADDRESS_TYPE, "a1"), addresses, &[]).await;
    for _ in 0..2 {
        assert!(stream.request().await.error_detail.is_none());
    }
}

#[tokio::test]
async fn the_proxy_says_who_it_is_and_is_ready_when_every_type_was_answered() {
    let mut scene = Scene::start().await;
    let mut stream = scene.istiod.stream().await;
    assert_eq!((stream.authorization.as_str(), stream.cluster.as_str()), ("Bearer first", "c1"));
    for type_url in [AUTHORIZATION_TYPE, ADDRESS_TYPE] {
        let request = stream.request().await;
        assert_eq!(request.type_url, type_url);
        assert!(request.resource_names_subscribe.is_empty());
        assert!(request.node.unwrap().id.starts_with("ztunnel~"));
    }
    let resources = vec![workload("a", [10, 0, 0, 1], "1")];
    stream.send((ADDRESS_TYPE, "a1"), resources, &[]).await;
    let answer = stream.request().await;
    assert_eq!((answer.type_url.as_str(), answer.response_nonce.as_str()), (ADDRESS_TYPE, "a1"));
    assert!(answer.error_detail.is_none());
    assert_eq!(scene.readiness.pending(), ["configuration"]);
    assert!(!scene.knows([10, 0, 0, 1]));

    stream.send((AUTHORIZATION_TYPE, "p1"), vec![policy("p")], &[]).await;
    scene.until(|state| state.counts() == (1, 0, 1)).await;
    assert!(scene.knows([10, 0, 0, 1]));
    stream.request().await;
    assert!(scene.readiness.pending().is_empty());
}

#[tokio::test]
async fn what_is_known_stays_while_the_control_plane_is_away_and_only_the_rest_is_asked_for() {
    let mut scene = Scene::start().await;
    let mut stream = scene.istiod.stream().await;
    let resources = vec![workload("a", [10, 0, 0, 1], "1"), workload("b", [10, 0, 0, 2], "1")];
    answer_first(&mut stream, resources).await;
    scene.until(|state| state.counts() == (2, 0, 0)).await;

    scene.istiod.go_away().await;
    // Several attempts fail meanwhile.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(scene.knows([10, 0, 0, 1]));
    assert!(scene.readiness.pending().is_empty());

    let root = Root::new("second");
    root.write(&scene.roots);
    std::fs::write(&scene.token, "second").unwrap();
    scene.istiod.listen(root.server("istiod.test")).await;
    let mut stream = scene.istiod.stream().await;
    assert_eq!(stream.authorization, "Bearer second");
    assert!(stream.request().await.initial_resource_versions.is_empty());
    let retained = stream.request().await.initial_resource_versions;
    let retained: Vec<_> = retained.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(retained, [("a", "1"), ("b", "1")]);
    let resources = vec![workload("c", [10, 0, 0, 3], "1")];
    stream.send((ADDRESS_TYPE, "a1"), resources, &["a"]).await;
    scene.until(|state| state.workload_at([10, 0, 0, 3].into()).is_some()).await;
    assert!(!scene.knows([10, 0, 0, 1]) && scene.knows([10, 0, 0, 2]));
}

#[tokio::test]
async fn a_resource_that_is_refused_is_named_and_does_not_keep_others_out() {
    let mut scene = Scene::start().await;
    let mut stream = scene.istiod.stream().await;
    answer_first(&mut stream, vec![workload("a", [10, 0, 0, 1], "1")]).await;
    let legacy = TunnelProtocol::LegacyIstioMtls.into();
    let unsupported = Workload { tunnel_protocol: legacy, ..wire_workload("bad", [10, 0, 0, 2]) };
    let resources = vec![
        address("bad", "1", Type::Workload(unsupported.clone())),
        workload("good", [10, 0, 0, 3], "1"),
        address("a", "2", Type::Workload(Workload { uid: "a".to_owned(), ..unsupported })),
    ];
    stream.send((ADDRESS_TYPE, "a2"), resources, &[]).await;
    let answer = stream.request().await;
    assert_eq!(answer.response_nonce, "a2");
    assert_eq!(
        answer.error_detail.unwrap().message,
        "bad: tunnel_protocol: the value LEGACY_ISTIO_MTLS is not supported: use another; \
         a: tunnel_protocol: the value LEGACY_ISTIO_MTLS is not supported: use another"
    );
    scene.until(|state| state.workload_at([10, 0, 0, 3].into()).is_some()).await;
    assert!(scene.knows([10, 0, 0, 1]), "the version before stays");
    assert!(!scene.knows([10, 0, 0, 2]));
    let shown = scene.node.metrics.encode().unwrap();
    assert!(shown.contains("fairlead_xds_rejected_resources_total 2"), "{shown}");

    drop(stream);
    let mut stream = scene.istiod.stream().await;
    stream.request().await;
    let retained = stream.request().await.initial_resource_versions;
    let retained: Vec<_> = retained.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(retained, [("a", "1"), ("good", "1")]);
}

#[tokio::test]
async fn a_control_plane_is_not_talked_to_before_its_root_is_trusted() {
    let mut scene = Scene::start().await;
    let stream = scene.istiod.stream().await;
    let other = Root::new("other");
    scene.istiod.listen(other.server("istiod.test")).await;
    drop(stream);
    let stranger = timeout(Duration::from_millis(300), scene.istiod.stream()).await;
    assert!(stranger.is_err(), "the token went to a stranger");
    other.write(&scene.roots);
    scene.istiod.stream().await;
    scene.istiod.listen(other.server("another.name")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let shown = scene.node.metrics.encode().unwrap();
    assert!(shown.contains("fairlead_xds_connected 0"), "{shown}");
}

#[tokio::test]
async fn a_ca_that_refuses_is_asked_again_and_its_reason_is_shown() {
    let mut scene = Scene::start().await;
    let mut stream = scene.istiod.stream().await;
    // From here on nothing but its failure makes the proxy ask again.
    answer_first(&mut stream, vec![workload("a", [10, 0, 0, 1], "1")]).await;
    scene.until(|state| state.workload_at([10, 0, 0, 1].into()).is_some()).await;
    let handle = scene.identities.acquire(&CART.parse().unwrap());
    let error = timeout(SOON, async {
        loop {
            if let Err(NoCertificate::Failed { error, .. }) = handle.current() {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let error = error.await.unwrap();
    assert!(error.contains("no such pod on your node"), "{error}");
    scene.istiod.grant(Root::new("workloads"));
    std::fs::write(&scene.token, "second").unwrap();
    let tls = timeout(SOON, handle.wait_ready()).await.unwrap();
    assert_eq!(tls.identity().to_string(), CART);
    let asked = |token: &str| Asked {
        authorization: format!("Bearer {token}"),
        identity: CART.to_owned(),
        seconds: i64::try_from(TTL.as_secs()).unwrap(),
    };
    assert_eq!(scene.istiod.asked(), [asked("first"), asked("second")]);
}

#[tokio::test]
async fn a_certificate_is_there_before_the_first_connection_of_a_pod_of_this_node() {
    let mut scene = Scene::start().await;
    scene.istiod.grant(Root::new("workloads"));
    let mut stream = scene.istiod.stream().await;
    let on = |uid: &str, node: &str| Workload {
        node: node.to_owned(),
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        service_account: uid.to_owned(),
        ..wire_workload(uid, [10, 0, 0, if node == "n1" { 1 } else { 2 }])
    };
    let resources = vec![
        address("cart", "1", Type::Workload(on("cart", "n1"))),
        address("far", "1", Type::Workload(on("far", "n2"))),
    ];
    answer_first(&mut stream, resources).await;
    let handle = scene.identities.acquire(&CART.parse().unwrap());
    timeout(SOON, handle.wait_ready()).await.unwrap();
    drop(handle);
    let known = || scene.identities.certificates().into_iter().map(|c| c.identity.to_string());
    assert_eq!(known().collect::<Vec<_>>(), [CART]);
    stream.send((ADDRESS_TYPE, "a2"), Vec::new(), &["cart"]).await;
    scene.until(|state| state.workload_at([10, 0, 0, 1].into()).is_none()).await;
    assert_eq!(known().count(), 0);
    assert_eq!(scene.istiod.asked().len(), 1);
}

/// Workloads and services of a mesh of some size.
fn large_mesh() -> Vec<Resource> {
    let hostname = |n: usize| format!("s{n}.shop.svc.cluster.local");
    let bytes = |n: usize| [u8::try_from(n >> 8).unwrap(), u8::try_from(n & 255).unwrap()];
    let services = (0..1_000).map(|n| {
        let [high, low] = bytes(n);
        let vip =
            NetworkAddress { address: vec![10, 96, high, low].into(), ..NetworkAddress::default() };
        let service = Service {
            name: format!("s{n}"),
            namespace: "shop".to_owned(),
            hostname: hostname(n),
            addresses: vec![vip],
            ports: vec![Port { service_port: 80, target_port: 8080, app_protocol: 0 }],
            ..Service::default()
        };
        address(&format!("shop/{}", hostname(n)), "1", Type::Service(service))
    });
    let workloads = (0..10_000).map(|n| {
        let [high, low] = bytes(n);
        let uid = format!("Kubernetes//Pod/shop/w{n}");
        let key = format!("shop/{}", hostname(n % 1_000));
        let services = [(key, PortList::default())].into();
        let workload = Workload { services, ..wire_workload(&uid, [10, 1, high, low]) };
        address(&uid, "1", Type::Workload(workload))
    });
    services.chain(workloads).collect()
}

#[tokio::test]
async fn one_change_among_ten_thousand_workloads_is_visible_at_once() {
    let mut scene = Scene::start().await;
    let mut stream = scene.istiod.stream().await;
    let resources = large_mesh();
    let started = Instant::now();
    answer_first(&mut stream, resources).await;
    scene.until(|state| state.counts() == (10_000, 1_000, 0)).await;
    println!("first state: {:?}", started.elapsed());
    let mut times = Vec::new();
    for n in 0..100 {
        let uid = format!("Kubernetes//Pod/shop/w{n}");
        let at = [10, 2, 0, n];
        let started = Instant::now();
        stream.send((ADDRESS_TYPE, "n"), vec![workload(&uid, at, "2")], &[]).await;
        scene.until(|state| state.workload_at(at.into()).is_some()).await;
        times.push(started.elapsed());
        stream.request().await;
    }
    times.sort_unstable();
    println!("one change: median {:?}, longest {:?}", times[50], times[99]);
    assert!(times[50] < Duration::from_millis(50), "{times:?}");
}
