//! The program with a directory of configuration, as a node proxy's client finds it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mesh_api::{
    control_plane::ControlPlane,
    proto::discovery::Node,
    xds_client::{Change, Event, MeshResource, Session, mesh_subscriptions, run},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);

const MESH: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec: {nodeName: n1, serviceAccountName: cart, containers: []}
status: {phase: Running, podIP: 10.0.0.7, podIPs: [{ip: 10.0.0.7}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}
";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{}]}
";

const POD: &str = "Kubernetes//Pod/shop/cart";
const SERVICE: &str = "shop/cart.shop.svc.cluster.local";

/// A running control plane.
struct Plane {
    dir: TempDir,
    log: Lines<BufReader<ChildStdout>>,
    address: String,
    _process: Child,
}

/// What a client of everything knows.
struct Client {
    events: mpsc::Receiver<Event<MeshResource>>,
    known: BTreeMap<String, MeshResource>,
}

// === impl Plane ===

impl Plane {
    async fn start() -> Result<Self> {
        let dir = TempDir::new()?;
        fs::create_dir(dir.path().join("mesh"))?;
        fs::write(dir.path().join("mesh/shop.yaml"), MESH)?;
        fs::write(dir.path().join("tokens"), "a-secret-of-sixteen n1 istio-system/ztunnel\n")?;
        fs::write(dir.path().join("token"), "a-secret-of-sixteen")?;
        let mut process = Command::new(env!("CARGO_BIN_EXE_fairlead-control"))
            .args(["--address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"])
            .args(["--log-format", "json", "--debounce-after", "10ms"])
            .arg("--config-dir")
            .arg(dir.path().join("mesh"))
            .arg("--ca-dir")
            .arg(dir.path().join("ca"))
            .arg("--token-file")
            .arg(dir.path().join("tokens"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let log = BufReader::new(process.stdout.take().context("no output")?).lines();
        let mut plane = Self { dir, log, address: String::new(), _process: process };
        let started = plane.line("started").await?;
        started["address"].as_str().context("no address")?.clone_into(&mut plane.address);
        Ok(plane)
    }

    /// Waits for a line of the log whose message or error has `text`.
    async fn line(&mut self, text: &str) -> Result<Value> {
        loop {
            let line = timeout(SOON, self.log.next_line()).await.context(text.to_owned())??;
            let line: Value = serde_json::from_str(&line.context("the log ended")?)?;
            if line.to_string().contains(text) {
                return Ok(line);
            }
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.file(name), text)?)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("mesh").join(name)
    }

    fn connect(&self) -> Result<Client> {
        let port = self.address.rsplit_once(':').context("no port")?.1;
        let control_plane = ControlPlane {
            address: format!("https://localhost:{port}").parse()?,
            server_name: None,
            roots: self.dir.path().join("ca/root-cert.pem"),
            token: self.dir.path().join("token"),
            cluster_id: "Kubernetes".to_owned(),
        };
        let session = Session::new(Node::default(), mesh_subscriptions());
        let (send, events) = mpsc::channel(16);
        tokio::spawn(run(control_plane, session, send));
        Ok(Client { events, known: BTreeMap::new() })
    }
}

// === impl Client ===

impl Client {
    async fn until(
        &mut self,
        done: impl Fn(&BTreeMap<String, MeshResource>) -> bool,
    ) -> Result<()> {
        while !done(&self.known) {
            let event = timeout(SOON, self.events.recv())
                .await
                .with_context(|| format!("known: {:?}", self.known.keys().collect::<Vec<_>>()))?;
            match event.context("the client ended")? {
                Event::Update(update) => {
                    anyhow::ensure!(update.rejections.is_empty(), "{:?}", update.rejections);
                    for change in update.changes {
                        match change {
                            Change::Updated(name, resource) => {
                                self.known.insert(name.to_string(), resource);
                            }
                            Change::Removed(name) => {
                                self.known.remove(&*name);
                            }
                        }
                    }
                }
                Event::Connected => {}
                Event::Disconnected(end) => anyhow::bail!("{end}"),
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_is_written_to_the_directory_reaches_a_client() -> Result<()> {
    let plane = Plane::start().await?;
    let mut client = plane.connect()?;
    client.until(|known| known.contains_key(POD) && known.contains_key(SERVICE)).await?;
    let MeshResource::Workload(workload) = &client.known[POD] else { panic!("{:?}", client.known) };
    assert_eq!(workload.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert!(workload.services.keys().any(|service| service.to_string() == SERVICE));

    let written = Instant::now();
    plane.write("policy.yaml", POLICY)?;
    client.until(|known| known.contains_key("shop/deny")).await?;
    // Not a benchmark: only that nothing waits for a timer of seconds.
    assert!(written.elapsed() < Duration::from_secs(5), "{:?}", written.elapsed());

    fs::remove_file(plane.file("policy.yaml"))?;
    client.until(|known| !known.contains_key("shop/deny")).await?;
    plane.write("shop.yaml", &MESH.replace("10.0.0.7", "10.0.0.8"))?;
    let moved = |known: &BTreeMap<String, MeshResource>| match known.get(POD) {
        Some(MeshResource::Workload(workload)) => {
            workload.addresses.iter().any(|address| address.to_string() == "10.0.0.8")
        }
        _ => false,
    };
    client.until(moved).await
}

#[tokio::test]
async fn a_file_that_is_broken_is_named_and_its_last_good_version_stays() -> Result<()> {
    let mut plane = Plane::start().await?;
    let mut client = plane.connect()?;
    plane.write("policy.yaml", POLICY)?;
    client.until(|known| known.contains_key("shop/deny")).await?;
    plane.write("policy.yaml", &POLICY.replace("DENY", "MAYBE"))?;
    let refused = plane.line("spec.action").await?;
    assert!(refused["error"].as_str().unwrap().starts_with("policy.yaml: "), "{refused}");
    // What comes after it is applied, and the broken file is as it was.
    plane.write("more.yaml", &POLICY.replace("name: deny", "name: more"))?;
    client.until(|known| known.contains_key("shop/more")).await?;
    assert!(client.known.contains_key("shop/deny"));
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_valid_token_learns_nothing() -> Result<()> {
    let plane = Plane::start().await?;
    fs::write(plane.dir.path().join("token"), "wrong")?;
    let mut client = plane.connect()?;
    let refused = client.until(|known| !known.is_empty()).await.unwrap_err();
    assert!(refused.to_string().contains("Unauthenticated"), "{refused}");
    Ok(())
}
