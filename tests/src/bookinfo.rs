//! Bookinfo in a mesh with a waypoint, from the manifests in `samples/bookinfo`.
//!
//! The lab plays the parts of a cluster that matter for it: an object that is applied gets its
//! namespace, a service its address, and a deployment its pod. [`story`] has what documents show with
//! it, for the demo and for the tests.

mod cluster;
mod page;
pub mod story;

use std::{
    collections::BTreeMap,
    env, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

pub use self::page::{Page, Reviews};
use self::{cluster::Deployment, page::CURL_FORMAT};
use crate::{
    Child, ControlPlane, FairleadNode, Host as _, Lab, Output, Pod, PodSpec, WaypointProxy,
    manifest, resolving, wait_for,
};

/// Names the program in place of the release build.
const BINARY_VARIABLE: &str = "FAIRLEAD_BOOKINFO_BIN";

/// The release build, as `cargo xtask build` leaves it.
const RELEASE_BINARY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/fairlead-bookinfo");

/// The manifests.
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/bookinfo");

/// Namespace of everything.
pub const NAMESPACE: &str = "demo";

/// Namespace whose policies hold for the whole mesh.
pub const ROOT_NAMESPACE: &str = "istio-system";

/// Port of all services.
pub const PORT: u16 = 9080;

/// The node of the control plane; it has neither pods nor a proxy.
const CONTROL_NODE: u8 = 3;

/// Nobody is there: what is asked of it are names of the mesh, which the proxy knows.
const NAME_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 53));

/// Address of the service that says which change has arrived at the waypoint.
const ARRIVED: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 1);

/// Its port before the first change; each change moves it on by one.
const ARRIVED_PORT: u16 = 10_000;

/// Last byte of the address of the first service that is applied, after that of [`ARRIVED`].
const FIRST_SERVICE: u8 = 10;

/// Time for a change to be felt: generous for what takes milliseconds on an idle machine.
const FELT: Duration = Duration::from_secs(30);

/// Time that curl gets for a page, in seconds: it may take the 6 s that the page waits for reviews.
const PAGE_SECONDS: &str = "20";

/// Labels of a namespace that documents put into the mesh, old ones and new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// `istio-injection=enabled`.
    Injection,
    /// `istio.io/dataplane-mode=ambient`.
    Ambient,
}

/// Bookinfo, its mesh and a client.
#[derive(Debug)]
pub struct Bookinfo {
    /// The waypoint of all services.
    pub waypoint: WaypointProxy,
    /// The proxy of node 1.
    pub n1: FairleadNode,
    /// The proxy of node 2.
    pub n2: FairleadNode,
    /// The control plane. Its directory has a file for each object.
    pub plane: ControlPlane,
    /// The pod `curl`, in the mesh on node 1.
    pub curl: Pod,
    /// What deployments became, by their names.
    instances: BTreeMap<String, Instance>,
    /// Last bytes of the addresses of services, by their names.
    addresses: BTreeMap<String, u8>,
    /// Changes so far.
    changes: u16,
    /// The nodes and pods.
    pub lab: Lab,
}

/// A pod of a deployment.
#[derive(Debug)]
struct Instance {
    pod: Pod,
    node: u8,
    server: Child,
}

// === impl Joining ===

impl Joining {
    /// Returns the label, as in a flow mapping.
    fn label(self) -> &'static str {
        match self {
            Self::Injection => "istio-injection: enabled",
            Self::Ambient => manifest::AMBIENT,
        }
    }
}

// === impl Bookinfo ===

impl Bookinfo {
    /// Starts the mesh, applies `platform/kube/bookinfo.yaml` and waits until the page is whole.
    pub fn start(name: &str, joining: Joining) -> Result<Self> {
        let lab = Lab::with_nodes(name, CONTROL_NODE)?;
        let pod = |node: u8, name: &str, account: &str| {
            let spec = PodSpec::new(name).namespace(NAMESPACE).service_account(account);
            lab.node(node).add_pod(spec)
        };
        let (curl, waypoint) = (pod(1, "curl", "default")?, pod(2, "waypoint", "waypoint")?);
        let settings = ControlPlane::on(lab.node(CONTROL_NODE), &lab.nodes()[..2])?;
        let labels = format!("{}, {}", joining.label(), manifest::USE_WAYPOINT);
        settings.write("namespace.yaml", &manifest::namespace(NAMESPACE, &labels))?;
        settings.write("pod-curl.yaml", &manifest::pod(&curl, ""))?;
        let labels =
            "istio.io/dataplane-mode: none, gateway.networking.k8s.io/gateway-name: waypoint";
        settings.write("pod-waypoint.yaml", &manifest::pod(&waypoint, labels))?;
        let gateway = manifest::waypoint([NAMESPACE, "waypoint"], waypoint.ipv4().into());
        settings.write("gateway.yaml", &gateway)?;
        let plane = settings.start()?;
        let join = |node: u8| {
            let proxy = plane.join(FairleadNode::on(lab.node(node)));
            proxy.args(["--enrol", "control-plane"]).start()
        };
        let (n1, n2) = (join(1)?, join(2)?);
        n1.enrol(&curl)?;
        let waypoint = WaypointProxy::start(&plane, &waypoint, "waypoint")?;
        let (instances, addresses) = (BTreeMap::new(), BTreeMap::new());
        let changes = 0;
        let mut bookinfo =
            Self { waypoint, n1, n2, plane, curl, instances, addresses, changes, lab };
        bookinfo.apply(NAMESPACE, "platform/kube/bookinfo.yaml")?;
        bookinfo.wait_whole()?;
        Ok(bookinfo)
    }

    /// Applies a manifest below `samples/bookinfo`, and waits until the waypoint knows of it.
    pub fn apply(&mut self, namespace: &str, sample: &str) -> Result<()> {
        self.apply_text(namespace, &read_sample(sample)?)
    }

    /// Applies what is written out, as from standard input.
    pub fn apply_text(&mut self, namespace: &str, manifest: &str) -> Result<()> {
        for object in cluster::objects(manifest, namespace)? {
            match Deployment::of(&object)? {
                Some(deployment) => self.deploy(&deployment)?,
                None => self.put(object)?,
            }
        }
        self.wait_arrived()
    }

    /// Deletes the objects of a manifest below `samples/bookinfo`, whatever they have become.
    pub fn delete(&mut self, namespace: &str, sample: &str) -> Result<()> {
        for object in cluster::objects(&read_sample(sample)?, namespace)? {
            match Deployment::of(&object)? {
                Some(deployment) => self.withdraw(&deployment.name)?,
                None => self.plane.remove(&cluster::file_of(&object)?)?,
            }
        }
        self.wait_arrived()
    }

    /// Loads the page several times, as someone who is logged in with [`Bookinfo::log_in`], or as
    /// nobody.
    pub fn load(&self, user: Option<&str>, times: usize) -> Result<Vec<Page>> {
        let url = format!("http://productpage:{PORT}/productpage?load=[1-{times}]");
        let jar = user.map(|user| self.jar(user).to_string_lossy().into_owned());
        let cookies = jar.iter().flat_map(|jar| ["-b", jar]);
        let output = self.run_curl(cookies.chain([url.as_str()]))?.checked()?;
        let pages = page::parse(&output.stdout)?;
        ensure!(pages.len() == times, "{} of {times} pages", pages.len());
        Ok(pages)
    }

    /// Opens a session.
    pub fn log_in(&self, user: &str) -> Result<()> {
        let (jar, form) = (self.jar(user), format!("username={user}"));
        let jar = jar.to_string_lossy();
        let url = format!("http://productpage:{PORT}/login");
        let output = self.run_curl(["-c", &jar, "-d", &form, &url])?.checked()?;
        let pages = page::parse(&output.stdout)?;
        ensure!(pages.iter().all(|page| page.status == 302), "no session: {pages:?}");
        Ok(())
    }

    /// Runs curl in the pod `curl`; what it got can be [parsed](Page).
    pub fn run_curl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        let curl = ["curl", "-sS", "-m", PAGE_SECONDS, "-w", CURL_FORMAT];
        self.curl.run(resolving(&self.curl, NAME_SERVER, curl.into_iter().chain(arguments))?)
    }

    /// Gets pages of a service with curl, the answers' headers among their text.
    pub fn get(&self, arguments: &[&str]) -> Result<Vec<Page>> {
        let output = self.run_curl(["-i"].into_iter().chain(arguments.iter().copied()))?;
        page::parse(&output.checked()?.stdout)
    }

    /// Returns what the pod of a deployment was asked, oldest first.
    pub fn asked(&self, deployment: &str) -> Result<Vec<Value>> {
        let log = self.instance(deployment)?.server.stdout()?;
        let lines = log.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?));
        let asked = lines.map(|line: Result<Value>| Ok(line?["request"].take()));
        let is_probe = |request: &Value| request["path"] == "/health";
        asked.filter(|request| !request.as_ref().is_ok_and(is_probe)).collect()
    }

    /// Returns how many requests the waypoint has counted with these labels.
    pub fn counted(&self, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(self.waypoint.metrics()?.sum("istio_requests_total", labels))
    }

    /// Waits until the waypoint has counted `wanted` requests with these labels.
    pub fn wait_counted(&self, labels: &[(&str, &str)], wanted: f64) -> Result<()> {
        wait_for("requests that are counted", FELT, || {
            Ok((self.counted(labels)? >= wanted).then_some(()))
        })
    }

    /// Loads the page again and again until it is as `wanted`.
    pub fn wait_page(&self, wanted: impl Fn(&Page) -> bool) -> Result<Page> {
        let mut last = None;
        let found = wait_for("the wanted page", FELT, || {
            let page = self.load(None, 1)?.pop();
            let found = page.clone().filter(&wanted);
            last = page;
            Ok(found)
        });
        found.with_context(|| format!("the last was {last:?}"))
    }

    /// Returns the address of the service `productpage`.
    pub fn page_address(&self) -> SocketAddr {
        let last = self.addresses.get("productpage").copied().unwrap_or_default();
        SocketAddr::from((service_address(last), PORT))
    }

    /// Returns all pods of deployments.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.instances.values().map(|instance| &instance.pod)
    }

    /// Leaves everything running.
    pub fn keep(self) {
        self.n1.detach();
        self.n2.detach();
        self.waypoint.detach();
        self.plane.detach();
        self.instances.into_values().for_each(|instance| instance.server.detach());
        self.lab.keep();
    }
}

/// What a cluster does with objects.
impl Bookinfo {
    fn put(&mut self, mut object: Value) -> Result<()> {
        if object["kind"] == "Service" {
            let next = FIRST_SERVICE + u8::try_from(self.addresses.len())?;
            let name = cluster::name(&object)?.to_owned();
            let last = *self.addresses.entry(name).or_insert(next);
            object["spec"]["clusterIP"] = service_address(last).to_string().into();
        }
        self.plane.write(&cluster::file_of(&object)?, &serde_saphyr::to_string(&object)?)
    }

    fn deploy(&mut self, deployment: &Deployment) -> Result<()> {
        let name = &deployment.name;
        ensure!(!self.instances.contains_key(name), "{name} is there already");
        // On one node after the other.
        let node = u8::try_from(self.instances.len() % 2)? + 1;
        let spec = PodSpec::new(name).namespace(NAMESPACE).service_account(&deployment.account);
        let pod = self.lab.node(node).add_pod(spec)?;
        let pod_file = manifest::labelled_pod(&pod, &deployment.labels);
        self.plane.write(&format!("pod-{name}.yaml"), &pod_file)?;
        self.proxy(node).enrol(&pod)?;
        let binary =
            env::var_os(BINARY_VARIABLE).map_or_else(|| RELEASE_BINARY.into(), PathBuf::from);
        let program = binary.to_string_lossy();
        let command = [&program, deployment.service.as_str(), deployment.version.as_str()];
        let server = pod.serve(resolving(&pod, NAME_SERVER, command)?, PORT)?;
        wait_for(&format!("{name} is in the mesh"), FELT, || {
            // Until it has a certificate nothing comes through.
            let answer = self.curl.http_get(pod.v4(PORT), "/health");
            Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
        self.instances.insert(name.clone(), Instance { pod, node, server });
        Ok(())
    }

    fn withdraw(&mut self, name: &str) -> Result<()> {
        let instance = self.instances.remove(name).with_context(|| format!("no {name}"))?;
        self.plane.remove(&format!("pod-{name}.yaml"))?;
        self.proxy(instance.node).release(&instance.pod)?;
        instance.pod.delete()
    }

    /// Waits until the waypoint has what was written before: changes of services and of routes each
    /// reach it in their order, so that a service that has a new port and a new route comes last.
    fn wait_arrived(&mut self) -> Result<()> {
        self.changes += 1;
        let address = SocketAddr::from((ARRIVED, ARRIVED_PORT + self.changes));
        let text = self.changes.to_string();
        self.plane.write("arrived.yaml", &cluster::arrived(address, &text))?;
        wait_for("the change at the waypoint", FELT, || {
            let answer = self.curl.http_get(address, "/");
            Ok(answer.is_ok_and(|answer| answer.body == text).then_some(()))
        })
    }

    fn wait_whole(&self) -> Result<()> {
        self.wait_page(|page| page.status == 200 && page.is_whole()).map(drop)
    }

    fn proxy(&self, node: u8) -> &FairleadNode {
        if node == 1 { &self.n1 } else { &self.n2 }
    }

    fn instance(&self, deployment: &str) -> Result<&Instance> {
        self.instances.get(deployment).with_context(|| format!("no deployment {deployment}"))
    }

    fn jar(&self, user: &str) -> PathBuf {
        self.lab.dir().join(format!("cookies-of-{user}"))
    }
}

fn service_address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 1, last)
}

fn read_sample(sample: &str) -> Result<String> {
    let path = Path::new(SAMPLES).join(sample);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}
