use std::{
    cell::RefCell,
    fs,
    net::SocketAddr,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::Path,
};

use fairlead_component::{
    http::Listener as _,
    logging::{LevelChange, Levels},
};
use fairlead_sys::descriptors::{self, pair};
use http::StatusCode;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    time::sleep,
};

use super::{
    ApiError, ApiErrorKind, ApiSocket, Inventory, Logging, Note, Origin, PassedConnections,
    PodControl, PodKey, PodName, PodSpec, PodState, PodStatus, SocketError,
    client::{Client, ClientError},
    serve, serve_agent,
    server::MAX_BODY_BYTES,
    socket_path,
};
use crate::{
    explain::Explanation,
    profile::{Kind, Window},
    supervise::control::MAX_FILTER_BYTES,
};

/// Keeps pods and levels in memory.
#[derive(Default)]
struct Fake(RefCell<Vec<PodStatus>>, Levels);

impl PodControl for Fake {
    async fn add(&self, spec: PodSpec, origin: Origin) -> Result<PodStatus, ApiError> {
        let mut pods = self.0.borrow_mut();
        if pods.iter().any(|pod| pod.name == spec.name) {
            return Err(ApiError::new(
                ApiErrorKind::Conflict,
                format!("{} is enrolled", spec.key()),
                "remove it first",
            ));
        }
        let status = PodStatus {
            identity: Some(format!(
                "spiffe://td/ns/{}/sa/{}",
                spec.namespace, spec.service_account
            )),
            namespace: spec.namespace,
            name: spec.name,
            uid: spec.uid,
            origin,
            service_account: Some(spec.service_account),
            netns: spec.netns,
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            state: PodState::Ready,
            problem: None,
            connections: 0,
            enrolled_in_ms: 1.5,
        };
        pods.push(status.clone());
        Ok(status)
    }

    async fn remove(&self, pod: &PodKey, _origin: Origin) -> Result<(), ApiError> {
        let mut pods = self.0.borrow_mut();
        let index = pods.iter().position(|p| p.namespace == pod.namespace && p.name == pod.name);
        let index = index.ok_or_else(|| {
            ApiError::new(ApiErrorKind::NotFound, format!("no pod {pod}"), "list the pods")
        })?;
        pods.remove(index);
        Ok(())
    }

    async fn list(&self) -> Vec<PodStatus> {
        self.0.borrow().clone()
    }

    async fn explain(&self, pod: &PodKey, to: SocketAddr) -> Result<Explanation, ApiError> {
        let status = self.list().await.into_iter().find(|status| status.key() == *pod);
        let missing = || ApiError::new(ApiErrorKind::NotFound, "no such pod", "list the pods");
        Ok(Explanation::of(status.ok_or_else(missing)?, to, None))
    }

    async fn inventory(&self, known: Option<u64>) -> Inventory {
        let version = known.map_or(0, |known| known + 1);
        Inventory { version, pods: self.list().await, registered: vec![spec("cart-0")] }
    }

    fn note(&self, notes: Vec<Note>) {
        self.0.borrow_mut().extend(notes.into_iter().map(PodStatus::not_captured));
    }

    fn logging(&self) -> Logging {
        Logging { level: self.1.to_string() }
    }

    fn log(&self, change: LevelChange) -> Result<Logging, ApiError> {
        let changed = self.1.apply(&change);
        changed.map_err(|error| ApiError::invalid(error.to_string(), "write a level"))?;
        Ok(self.logging())
    }

    async fn profile(&self, kind: Kind, window: Window) -> Result<Vec<u8>, ApiError> {
        sleep(window.duration()).await;
        Ok(format!("{kind} for {window} s").into())
    }
}

fn spec(name: &str) -> PodSpec {
    PodSpec {
        uid: None,
        namespace: "shop".parse().unwrap(),
        name: name.parse().unwrap(),
        service_account: "cart".parse().unwrap(),
        netns: Some("/run/netns/cart".into()),
        addresses: Vec::new(),
    }
}

/// Runs `test` while a server with a fake control serves in a fresh directory.
async fn with_server<F: Future>(test: impl FnOnce(Box<Path>) -> F) {
    let dir = TempDir::new().unwrap();
    let run_dir = dir.path().join("run");
    let socket = ApiSocket::bind(&run_dir).unwrap();
    let control = Fake::default();
    tokio::select! {
        never = serve(&socket, &control) => never,
        _ = test(run_dir.into()) => {}
    }
}

/// Sends a request as text and returns the answer as text.
async fn raw(run_dir: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket_path(run_dir)).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn post(run_dir: &Path, body: &str) -> String {
    let length = body.len();
    let head = format!("POST /v1/pods HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    raw(run_dir, &(head + body)).await
}

#[tokio::test]
async fn a_pod_is_added_listed_and_removed() {
    with_server(async |run_dir| {
        let client = Client::new(&run_dir);
        let added = client.add(&spec("cart-0")).await.unwrap();
        assert_eq!(added.identity.as_deref(), Some("spiffe://td/ns/shop/sa/cart"));
        assert_eq!(client.list().await.unwrap(), [added]);
        let key = spec("cart-0").key();
        client.remove(&key).await.unwrap();
        assert_eq!(client.list().await.unwrap(), []);
        let error = client.remove(&key).await.unwrap_err();
        assert_eq!(error.to_string(), "no pod shop/cart-0: list the pods");
        let not_found = StatusCode::NOT_FOUND;
        assert!(matches!(error, ClientError::Refused { status, .. } if status == not_found));
    })
    .await;
}

#[tokio::test]
async fn an_added_pod_is_answered_with_201_and_its_status_in_json() {
    with_server(async |run_dir| {
        let body = r#"{"namespace":"shop","name":"cart-0","service_account":"cart",
            "netns":"/run/netns/cart","uid":"u1"}"#;
        let answer = post(&run_dir, body).await;
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        assert!(
            answer.contains(r#""addresses":["10.0.0.1","fd00::1"],"state":"ready""#),
            "{answer}"
        );
        let answer = post(&run_dir, body).await;
        assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
        assert!(
            answer.ends_with(r#"{"error":"shop/cart-0 is enrolled","remedy":"remove it first"}"#)
        );
    })
    .await;
}

#[tokio::test]
async fn broken_requests_are_refused_with_an_error_and_a_remedy() {
    let valid = r#""namespace":"shop","name":"a","service_account":"a""#;
    let oversized = format!(r#"{{"uid":"{}"}}"#, "x".repeat(MAX_BODY_BYTES));
    let cases = [
        ("{".to_owned(), "400", "EOF"),
        (format!(r#"{{{valid},"netns":"/n","colour":"red"}}"#), "400", "unknown field `colour`"),
        (format!("{{{valid}}}"), "400", "neither netns nor uid"),
        (format!(r#"{{{valid},"netns":"n"}}"#), "400", "not an absolute path"),
        (valid.replace("shop", "../x").replace('\\', ""), "400", "not a pod specification"),
        (oversized, "413", "65536 bytes"),
    ];
    with_server(async |run_dir| {
        for (body, status, part) in &cases {
            let answer = post(&run_dir, body).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(answer.contains(part) && answer.contains("\"remedy\":"), "{answer}");
        }
        for (request, status) in [
            ("DELETE /v1/pods/shop", "400"),
            ("DELETE /v1/pods/shop/a/b", "400"),
            ("DELETE /v1/pods/shop/..", "400"),
            ("DELETE /v1/pods/shop/none", "404"),
            ("PUT /v1/pods", "404"),
            ("GET /v1/podsx", "404"),
            ("GET /v1/inventory/x", "404"),
            ("GET /v1/explain", "400"),
            ("GET /v1/explain/shop/a", "400"),
            ("GET /v1/explain/shop/a/10.0.0.1", "400"),
            ("GET /v1/explain/shop/a/b/10.0.0.1:80", "400"),
            ("GET /v1/explain/shop/none/10.0.0.1:80", "404"),
            ("PUT /v1/notes", "404"),
            ("GET /", "404"),
        ] {
            let answer = raw(&run_dir, &format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(answer.contains("\"remedy\":"), "{request}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_explained_to_operators_only() {
    with_server(async |run_dir| {
        let client = Client::new(&run_dir);
        client.add(&spec("cart-0")).await.unwrap();
        for to in ["10.96.0.1:80", "[fd00:96::1]:65535"] {
            let to = to.parse().unwrap();
            let explained = client.explain(&spec("cart-0").key(), to).await.unwrap();
            assert_eq!((explained.to, explained.capture), (to, PodState::Ready));
        }
    })
    .await;
    let control = Fake::default();
    let (client, client_links) = Client::linked();
    let (send, server_links) = mpsc::channel(1);
    let connections = PassedConnections::new(server_links);
    let (server, agent) = pair().unwrap();
    send.send(server).await.unwrap();
    client_links.replace(agent).unwrap();
    let (pod, to) = (spec("cart-0").key(), "10.0.0.1:80".parse().unwrap());
    let refused = tokio::select! {
        never = serve_agent(&connections, &control) => never,
        refused = client.explain(&pod, to) => refused,
    };
    let refused = refused.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: StatusCode::NOT_FOUND, .. }));
    let refused = tokio::select! {
        never = serve_agent(&connections, &control) => never,
        refused = client.profile(Kind::Cpu, "1".parse().unwrap()) => refused,
    };
    let refused = refused.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: StatusCode::NOT_FOUND, .. }));
}

/// The agent may say what it wants to say, over connections that have no name.
#[tokio::test]
async fn the_agent_is_served_over_links_and_goes_on_with_the_latest() {
    let control = Fake::default();
    let (client, client_links) = Client::linked();
    let (send, server_links) = mpsc::channel(2);
    let connections = PassedConnections::new(server_links);
    let link = async || {
        let (server, client) = pair().unwrap();
        send.send(server).await.unwrap();
        client_links.replace(client).unwrap();
    };
    let test = async {
        let (asked, ()) = tokio::join!(client.inventory(None), link());
        assert_eq!(asked.unwrap().version, 0);
        assert_eq!(client.add(&spec("cart-0")).await.unwrap().origin, Origin::Agent);
        let inventory = client.inventory(Some(7)).await.unwrap();
        assert_eq!((inventory.version, inventory.pods.len()), (8, 1));
        link().await;
        let reason = "it has no address yet".to_owned();
        let PodKey { namespace, name } = spec("cart-1").key();
        client.note(&[Note { namespace, name, waiting: true, reason }]).await.unwrap();
        let pods = client.list().await.unwrap();
        assert_eq!(pods[1].state, PodState::Waiting);
    };
    tokio::select! {
        never = serve_agent(&connections, &control) => never,
        () = test => {}
    }
}

#[tokio::test]
async fn what_is_no_connection_is_refused_and_the_next_one_served() {
    let (send, links) = mpsc::channel(1);
    let connections = PassedConnections::new(links);
    let (server, agent) = pair().unwrap();
    send.send(server).await.unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    for (data, passed) in [
        (&b"connection"[..], &[][..]),
        (b"connection", &[file.as_fd()]),
        (b"connection", &[datagram.as_fd()]),
        (b"connection", &[tcp.as_fd()]),
        (b"connection", &[stream.as_fd(), stream.as_fd()]),
        (b"connect", &[stream.as_fd()]),
        (b"connections", &[stream.as_fd()]),
    ] {
        descriptors::send(&agent, data, passed).unwrap();
        connections.accept().await.unwrap_err();
    }
    descriptors::send(&agent, b"connection", &[stream.as_fd()]).unwrap();
    connections.accept().await.unwrap();
}

#[tokio::test]
async fn the_directory_and_the_socket_are_private() {
    with_server(async |run_dir| {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&run_dir), 0o700);
        assert_eq!(mode(&socket_path(&run_dir)), 0o600);
    })
    .await;
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = ApiSocket::bind(dir.path()).unwrap_err();
    assert!(matches!(error, SocketError::NotPrivate { mode: 0o777, .. }), "{error}");
}

#[tokio::test]
async fn a_client_without_a_server_is_told_what_to_check() {
    let dir = TempDir::new().unwrap();
    let client = Client::new(dir.path());
    let error = client.list().await.unwrap_err();
    assert!(matches!(error, ClientError::NoSocket(_)), "{error}");
    assert!(error.to_string().contains("--run-dir"), "{error}");
    drop(std::os::unix::net::UnixListener::bind(socket_path(dir.path())).unwrap());
    let error = client.list().await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning(_)), "{error}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(std::os::unix::net::UnixListener::bind(socket_path(dir.path())).unwrap());
    let socket = ApiSocket::bind(dir.path()).unwrap();
    let error = ApiSocket::bind(dir.path()).unwrap_err();
    assert!(matches!(error, SocketError::InUse(_)), "{error}");
    UnixStream::connect(socket.path()).await.unwrap();
    drop(socket);
    assert!(!socket_path(dir.path()).exists());
    ApiSocket::bind(dir.path()).unwrap();
}

#[test]
fn pod_names_are_those_that_kubernetes_allows() {
    for good in ["a", "cart-6f9-x2k", "a.b", &"x".repeat(253)] {
        assert!(good.parse::<PodName>().is_ok(), "{good}");
    }
    for bad in ["", "-a", "a-", "A", "a/b", "..", "a b", "a\n", &"x".repeat(254)] {
        assert!(bad.parse::<PodName>().is_err(), "{bad:?}");
    }
    assert_eq!(spec("cart-0").uid(), "shop/cart-0");
}

#[tokio::test]
async fn what_is_logged_is_shown_changed_and_reset() {
    with_server(async |run_dir: Box<Path>| {
        let client = Client::new(&run_dir);
        let put = |level: &str| client.log(LevelChange::Put(level.to_owned()));
        assert_eq!(client.logging().await.unwrap().level, "info");
        assert_eq!(put("debug").await.unwrap().level, "debug");
        for wrong in ["", "loud=very", &"x".repeat(MAX_FILTER_BYTES + 1)] {
            let refused = put(wrong).await;
            assert!(matches!(
                refused,
                Err(ClientError::Refused { status: StatusCode::BAD_REQUEST, .. })
            ));
        }
        assert_eq!(client.log(LevelChange::Reset).await.unwrap().level, "info");
        assert!(
            raw(&run_dir, "POST /v1/logging HTTP/1.1\r\nhost: x\r\n\r\n").await.contains("404")
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_profile_may_take_longer_than_other_answers() {
    with_server(async |run_dir: Box<Path>| {
        let client = Client::new(&run_dir);
        for (kind, seconds) in [(Kind::Cpu, "1"), (Kind::Heap, "60")] {
            let profile = client.profile(kind, seconds.parse().unwrap()).await.unwrap();
            assert_eq!(profile, format!("{kind} for {seconds} s").as_bytes());
        }
        for (request, status) in [
            ("POST /v1/profile/cpu/61", "400"),
            ("POST /v1/profile/cpu/0", "400"),
            ("POST /v1/profile/cpu", "400"),
            ("POST /v1/profile/cpu/1/1", "400"),
            ("POST /v1/profile/other/1", "400"),
            ("POST /v1/profile", "400"),
            ("GET /v1/profile/cpu/1", "404"),
        ] {
            let answer = raw(&run_dir, &format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        }
    })
    .await;
}
