//! A control plane with a source that the test drives.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser as _;
use mesh_api::{
    identity::{Identity, Namespace},
    proto::workload::{Service, Workload},
    workload::NodeName,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    auth::PodReference,
    ca::Placement,
    cli::{Cli, RunArgs},
    resource::{Change, Kind, Resource, ResourceName, Urgency},
    run::{ControlPlane, RunError, Source},
    telemetry::metrics::Metrics,
};

/// Token of the node proxy on n1.
pub(super) const TOKEN: &str = "token-of-the-proxy-on-n1";

/// Tokens of waypoints, by their namespaces.
pub(super) const WAYPOINT_TOKENS: [(&str, &str); 2] =
    [("shop", "token-of-the-waypoint-of-shop"), ("bank", "token-of-the-waypoint-of-bank")];

/// Identity with a pod on n1, and nowhere else.
pub(super) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// A control plane that serves.
pub(super) struct Plane {
    pub(super) address: SocketAddr,
    pub(super) root: String,
    pub(super) metrics: Arc<Metrics>,
    admin_address: SocketAddr,
    changes: mpsc::Sender<Vec<Change>>,
    terminate: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
    _directory: TempDir,
}

#[derive(Debug)]
struct CartOnN1;

impl Placement for CartOnN1 {
    fn runs_on(&self, identity: &Identity, node: &NodeName) -> bool {
        identity.to_string() == CART && &*node.0 == "n1"
    }

    fn node_of(&self, _: &Namespace, _: &PodReference) -> Option<NodeName> {
        None
    }

    fn changes(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }
}

// === impl Plane ===

impl Plane {
    /// Starts a control plane whose first state is `first`.
    pub(super) async fn start(first: Vec<Change>) -> Self {
        let plane = Self::start_with(|_| {}).await;
        plane.apply(first).await;
        plane.wait_ready().await;
        plane
    }

    /// Starts a control plane without a state.
    pub(super) async fn start_with(change: impl FnOnce(&mut RunArgs)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tokens = directory.path().join("tokens");
        let of_waypoints =
            WAYPOINT_TOKENS.map(|(namespace, token)| format!("{token} n1 {namespace}/w\n"));
        let of_node = format!("{TOKEN} n1 istio-system/ztunnel\n");
        fs::write(&tokens, of_node + &of_waypoints.concat()).unwrap();
        let mut args = Cli::parse_from(["fairlead-control", "--config-dir", "unused"]).run;
        args.ca_dir = Some(directory.path().join("ca"));
        args.token_file = Some(tokens);
        args.address = SocketAddr::from(([127, 0, 0, 1], 0));
        args.admin_address = args.address;
        change(&mut args);
        let (changes, receiver) = mpsc::channel(1);
        let source = Source { changes: receiver, placement: Arc::new(CartOnN1) };
        let metrics = Arc::new(Metrics::new());
        let plane = ControlPlane::open(&args, source, None, Arc::clone(&metrics)).await.unwrap();
        let (terminate, terminated) = oneshot::channel::<()>();
        Self {
            address: plane.address().unwrap(),
            admin_address: plane.admin_address().unwrap(),
            root: plane.authority().bundle().roots_pem().to_owned(),
            metrics,
            changes,
            terminate: Some(terminate),
            task: tokio::spawn(plane.serve(async { drop(terminated.await) })),
            _directory: directory,
        }
    }

    pub(super) async fn apply(&self, changes: Vec<Change>) {
        self.changes.send(changes).await.unwrap();
    }

    /// Terminates the control plane; the task ends when all clients are gone.
    pub(super) fn terminate(&mut self) {
        self.terminate.take().unwrap().send(()).unwrap();
    }

    /// Lets go of the source of the configuration.
    pub(super) async fn without_source(self) -> Result<(), RunError> {
        let Self { changes, task, .. } = self;
        drop(changes);
        task.await.unwrap()
    }

    pub(super) async fn ended(self) -> Result<(), RunError> {
        self.task.await.unwrap()
    }

    /// Returns status and body of a page of the admin interface.
    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin_address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits until what `/debug/syncz` says of the first client's type is as `condition` wants.
    pub(super) async fn wait_synced(&self, type_url: &str, condition: impl Fn(&Value) -> bool) {
        poll(async || {
            let (_, body) = self.get("/debug/syncz").await;
            let clients: Value = serde_json::from_str(&body).unwrap();
            condition(&clients[0]["types"][type_url])
        })
        .await;
    }

    async fn wait_ready(&self) {
        poll(async || self.get("/ready").await.0 == 200).await;
    }
}

/// Waits for what another task does without saying so.
pub(super) async fn poll(mut condition: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll).await.expect("it happens in time");
}

pub(super) fn workload(name: &str, content: &str) -> Change {
    aliased_workload(name, content, &[])
}

pub(super) fn aliased_workload(name: &str, content: &str, aliases: &[&str]) -> Change {
    let workload = Workload { uid: name.into(), name: content.into(), ..Default::default() };
    let aliases = aliases.iter().map(|alias| Box::from(*alias)).collect();
    present(Resource::workload(&workload, aliases))
}

pub(super) fn service(namespace: &str, hostname: &str) -> Change {
    let service =
        Service { namespace: namespace.into(), hostname: hostname.into(), ..Default::default() };
    present(Resource::service(&service, Box::default()))
}

pub(super) fn gone(name: &str) -> Change {
    let name = ResourceName::new(name);
    Change { kind: Kind::Workload, name, resource: None, urgency: Urgency::Immediate }
}

fn present(resource: Resource) -> Change {
    let (kind, name) = (resource.kind, resource.name.clone());
    Change { kind, name, resource: Some(Arc::new(resource)), urgency: Urgency::Batched }
}
