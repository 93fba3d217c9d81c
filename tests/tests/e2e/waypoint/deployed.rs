//! A waypoint that the control plane deploys. The test plays the rest of the cluster: it starts the
//! pod as its manifest says, and reports it.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use fairlead_kube_api::{ApiServer, TokenUser};
use fairlead_lab::{
    Child, ControlPlane, FairleadNode, Host as _, Lab, Pod, PodSpec, WaypointProxy, mesh::HTTP,
    python, wait_for,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{FELT, b};
use crate::clients::{curl, curl_with};

/// The node of the control plane and of the API server.
const CONTROL_NODE: u8 = 3;

/// Name of the gateway.
const WAYPOINT: &str = "waypoint";

/// Address of the waypoint's service.
const WAYPOINT_ADDRESS: &str = "10.96.0.99";

/// Where the image has the program.
const PROGRAM: &str = "/usr/local/bin/fairlead-waypoint";

/// A cluster with the pods `a` on node 1 and `b` on node 2, of which the latter has a service.
struct Scene {
    n1: FairleadNode,
    _n2: FairleadNode,
    plane: ControlPlane,
    a: Pod,
    b: Pod,
    _http: Child,
    server: ApiServer,
    _runtime: Runtime,
    lab: Lab,
}

/// A pod of a deployment that runs.
struct Running {
    pod: Pod,
    process: Child,
}

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": { "istio.io/dataplane-mode": "ambient" } },
    })
}

fn object_of(pod: &Pod, labels: &Value, annotations: &Value) -> Value {
    let metadata = json!({
        "namespace": pod.namespace(), "name": pod.name(), "labels": labels,
        "annotations": annotations,
    });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "nodeName": pod.node(), "serviceAccountName": pod.service_account(),
            "containers": [],
        },
        "status": {
            "phase": "Running", "podIP": pod.ipv4().to_string(),
            "podIPs": [{ "ip": pod.ipv4().to_string() }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "namespace": "shop", "name": WAYPOINT },
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{ "name": "mesh", "port": 15008, "protocol": "HBONE" }],
        },
    })
}

fn named(api_version: &str, kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": { "namespace": "shop", "name": name },
    })
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("no text: {value}"))
}

// === impl Scene ===

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let lab = Lab::with_nodes(name, CONTROL_NODE)?;
        let spec = |name: &str| PodSpec::new(name).namespace("shop").service_account(name);
        let (a, b) = (lab.node(1).add_pod(spec("a"))?, lab.node(2).add_pod(spec("b"))?);
        let http = b.serve(python("http_server.py", &[&HTTP.to_string()]), HTTP)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let host = lab.node(CONTROL_NODE);
        let server = host.netns().enter(|| runtime.block_on(ApiServer::start()))?;
        for namespace in ["istio-system", "shop"].map(namespace) {
            server.apply(&namespace)?;
        }
        let enrolled = json!({ "ambient.istio.io/redirection": "enabled" });
        for pod in [&a, &b] {
            server.apply(&object_of(pod, &json!({ "app": pod.name() }), &enrolled))?;
        }
        let settings =
            ControlPlane::on(host, &lab.nodes()[..2])?.kubernetes(&server.kubeconfig())?;
        for node in &lab.nodes()[..2] {
            let user = TokenUser {
                namespace: "istio-system".to_owned(),
                service_account: "ztunnel".to_owned(),
                pod: Some((format!("ztunnel-{}", node.name()), node.name().to_owned())),
                node: Some(node.name().to_owned()),
                audiences: vec!["istio-ca".to_owned()],
            };
            server.add_token(&settings.node_token(node.name())?, user);
        }
        let plane = settings.start()?;
        let start = |node: u8| plane.join(FairleadNode::on(lab.node(node))).start();
        let (n1, n2) = (start(1)?, start(2)?);
        n1.enrol(&a)?;
        n2.enrol(&b)?;
        Ok(Self { n1, _n2: n2, plane, a, b, _http: http, server, _runtime: runtime, lab })
    }

    fn get(&self, object: &Value) -> Result<Option<Value>> {
        Ok(self.server.get(object)?.map(Value::Object))
    }

    /// Waits until there is an object, and returns it.
    fn wait_for_object(&self, object: &Value) -> Result<Value> {
        wait_for(&object.to_string(), FELT, || self.get(object))
            .with_context(|| self.plane.log().unwrap_or_default())
    }

    /// Changes an object as the cluster's own controllers do.
    fn edit(&self, object: &Value, change: impl Fn(&mut Value)) -> Result<()> {
        wait_for("a change", FELT, || {
            let mut present = self.get(object)?.context("it is gone")?;
            change(&mut present);
            // The control plane may have written it in between.
            Ok(self.server.apply(&present).ok().map(drop))
        })
    }

    /// Runs the waypoint that is deployed under this name, and waits until requests to the service of
    /// `b` pass it.
    fn run_waypoint(&self, name: &str) -> Result<Running> {
        let bound = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": "shop", "name": "b", "labels": { "istio.io/use-waypoint": WAYPOINT },
            },
            "spec": {
                "clusterIP": b().ip().to_string(), "selector": { "app": "b" },
                "ports": [{ "name": "http", "port": b().port(), "targetPort": HTTP }],
            },
        });
        self.server.apply(&bound)?;
        let deployment = self.wait_for_object(&named("apps/v1", "Deployment", name))?;
        let running = self.run(&deployment)?;
        let service = named("v1", "Service", name);
        self.wait_for_object(&service)?;
        self.edit(&service, |service| {
            service["spec"]["clusterIP"] = json!(WAYPOINT_ADDRESS);
        })?;
        self.edit(&deployment, |deployment| {
            deployment["status"] = json!({ "replicas": 1, "readyReplicas": 1 });
        })?;
        let passed = r#""GET / HTTP/1.1" 200 - via_upstream"#;
        wait_for("a request passes the waypoint", FELT, || {
            let answer = curl_with(&self.a, b(), &[])?;
            Ok((answer.is_ok() && running.log().contains(passed)).then_some(()))
        })
        .with_context(|| format!("{}\n{}", running.log(), self.n1.complaints()))?;
        Ok(running)
    }

    /// Runs a pod of a deployment, as the kubelet does.
    fn run(&self, deployment: &Value) -> Result<Running> {
        let template = &deployment["spec"]["template"];
        let (metadata, spec) = (&template["metadata"], &template["spec"]);
        let name = format!("{}-1", text(&deployment["metadata"]["name"])?);
        let account = text(&spec["serviceAccountName"])?;
        let pod_spec = PodSpec::new(&name).namespace("shop").service_account(account);
        let pod = self.lab.node(2).add_pod(pod_spec)?;
        let written = object_of(&pod, &metadata["labels"], &metadata["annotations"]);
        let stored = Value::Object(self.server.apply(&written)?);
        let uid = text(&stored["metadata"]["uid"])?;
        let volumes = self.volumes(&pod, uid, spec)?;
        let container = &spec["containers"][0];
        assert_eq!(container["command"], json!([PROGRAM]));
        let mut command = Command::new(WaypointProxy::program());
        command.args(container["args"].as_array().into_iter().flatten().filter_map(Value::as_str));
        let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
        for variable in container["env"].as_array().context("no environment")? {
            let mut value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                None => text(&variable["value"])?.to_owned(),
                Some(field) => field_of(&pod, field)?,
            };
            // There is no file system of a container for the paths of its mounts.
            for mount in &mounts {
                let directory = &volumes[text(&mount["name"])?];
                let path = format!("{}/", text(&mount["mountPath"])?);
                if let Some(file) = value.strip_prefix(&path) {
                    value = directory.join(file).to_string_lossy().into_owned();
                }
            }
            command.env(text(&variable["name"])?, value);
        }
        let mut running = Running { process: pod.spawn(command)?, pod };
        running.wait_ready(&container["readinessProbe"]["httpGet"])?;
        Ok(running)
    }

    /// Makes the volumes of a pod; returns the directory of each.
    fn volumes(&self, pod: &Pod, uid: &str, spec: &Value) -> Result<BTreeMap<String, PathBuf>> {
        let mut directories = BTreeMap::new();
        for volume in spec["volumes"].as_array().context("no volumes")? {
            let name = text(&volume["name"])?;
            let directory = self.lab.dir().join("volumes").join(pod.name()).join(name);
            fs::create_dir_all(&directory)?;
            let token = &volume["projected"]["sources"][0]["serviceAccountToken"];
            if let Some(audience) = token["audience"].as_str() {
                let secret = format!("token-of-{uid}");
                fs::write(directory.join(text(&token["path"])?), &secret)?;
                let user = TokenUser {
                    namespace: pod.namespace().to_owned(),
                    service_account: pod.service_account().to_owned(),
                    pod: Some((pod.name().to_owned(), uid.to_owned())),
                    node: Some(pod.node().to_owned()),
                    audiences: vec![audience.to_owned()],
                };
                self.server.add_token(&secret, user);
            }
            if let Some(map) = volume["configMap"]["name"].as_str() {
                let map = named("v1", "ConfigMap", map);
                let content = match volume["configMap"]["optional"].as_bool() {
                    Some(true) => self.get(&map)?.unwrap_or_default(),
                    Some(false) | None => self.wait_for_object(&map)?,
                };
                for (file, content) in content["data"].as_object().into_iter().flatten() {
                    fs::write(directory.join(file), text(content)?)?;
                }
            }
            directories.insert(name.to_owned(), directory);
        }
        Ok(directories)
    }
}

fn field_of(pod: &Pod, path: &str) -> Result<String> {
    let fields = [
        ("metadata.name", pod.name().to_owned()),
        ("metadata.namespace", pod.namespace().to_owned()),
        ("status.podIP", pod.ipv4().to_string()),
        ("spec.nodeName", pod.node().to_owned()),
    ];
    let found = fields.into_iter().find(|(field, _)| *field == path);
    found.map(|(_, value)| value).with_context(|| format!("no field {path}"))
}

// === impl Running ===

impl Running {
    fn wait_ready(&mut self, probe: &Value) -> Result<()> {
        let port = u16::try_from(probe["port"].as_u64().context("no port")?)?;
        let path = text(&probe["path"])?;
        wait_for("the pod is ready", FELT, || {
            let page = self.pod.http_get(self.pod.v4(port), path);
            Ok(page.is_ok_and(|page| page.status == 200).then_some(()))
        })
        .with_context(|| self.log())
    }

    fn log(&self) -> String {
        self.process.stdout().unwrap_or_default() + &self.process.stderr().unwrap_or_default()
    }
}

#[test]
fn a_waypoint_runs_as_it_is_deployed_and_takes_the_traffic_of_its_services() -> Result<()> {
    let scene = Scene::new("wpdeploy")?;
    scene.server.apply(&gateway())?;
    let _running = scene.run_waypoint(WAYPOINT)?;
    let gateway = scene.get(&gateway())?.context("it is gone")?;
    let address = &gateway["status"]["addresses"][0]["value"];
    assert_eq!(address, "waypoint.shop.svc.cluster.local");
    Ok(())
}

#[test]
fn a_waypoint_runs_as_the_config_map_of_its_gateway_says() -> Result<()> {
    let scene = Scene::new("wpsizes")?;
    let mut gateway = gateway();
    gateway["spec"]["infrastructure"] =
        json!({ "parametersRef": { "group": "", "kind": "ConfigMap", "name": "sizes" } });
    let mut sizes = named("v1", "ConfigMap", "sizes");
    let container = "{name: istio-proxy, env: [{name: PROXY_WORKER_THREADS, value: '1'}]}";
    sizes["data"] = json!({
        "deployment": format!("spec: {{template: {{spec: {{containers: [{container}]}}}}}}"),
    });
    scene.server.apply(&sizes)?;
    scene.server.apply(&gateway)?;
    let running = scene.run_waypoint(WAYPOINT)?;
    let environment = fs::read(format!("/proc/{}/environ", running.process.pid()))?;
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.split('\0').any(|v| v == "PROXY_WORKER_THREADS=1"), "{environment}");
    Ok(())
}

#[test]
fn a_waypoint_that_has_other_names_than_its_gateway_is_found_and_let_through() -> Result<()> {
    let scene = Scene::new("wpnames")?;
    let mut gateway = gateway();
    gateway["metadata"]["annotations"] = json!({
        "gateway.istio.io/name-override": "front", "gateway.istio.io/service-account": "keeper",
        "fairlead.io/require-waypoint": "true",
    });
    scene.server.apply(&gateway)?;
    let running = scene.run_waypoint("front")?;
    assert_eq!(running.pod.service_account(), "keeper");
    let gateway = scene.get(&gateway)?.context("it is gone")?;
    let address = &gateway["status"]["addresses"][0]["value"];
    assert_eq!(address, "front.shop.svc.cluster.local");
    // It is the only way.
    wait_for("a refusal", FELT, || {
        Ok(curl(&scene.a, scene.b.v4(HTTP))?.is_refused().then_some(()))
    })?;
    assert!(curl_with(&scene.a, b(), &[])?.is_ok());
    Ok(())
}
