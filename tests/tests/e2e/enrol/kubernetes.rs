//! Labels in the Kubernetes API decide which pods are in the mesh.

use anyhow::{Context as _, Result};
use fairlead_lab::{
    Child, FairleadNode, Half, Host as _, Lab, MeshConfig, Pod, PodSpec, python, wait_for,
};

use super::{
    SOON,
    cluster::{Cluster, Container},
    listed, wait_for_state, wait_until_unlisted,
};
use crate::{clients::curl, mesh::HTTP};

/// Two nodes: the pods of the first are enrolled by their labels, that of the second by hand.
struct Scene {
    n1: FairleadNode,
    _n2: FairleadNode,
    cluster: Cluster,
    a: Pod,
    /// On the first node, too.
    c: Pod,
    b: Pod,
    _server: Child,
    lab: Lab,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        Self::with_args(name, &[])
    }

    /// With further arguments for the first node.
    fn with_args(name: &str, args: &[&str]) -> Result<Self> {
        let lab = Lab::new(name)?;
        let pod = |node: u8, name: &str| {
            let spec = PodSpec::new(name).namespace("shop").service_account(name);
            lab.node(node).add_pod(spec)
        };
        let (a, b, c) = (pod(1, "a")?, pod(2, "b")?, pod(1, "c")?);
        let server = b.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?;
        let config = lab.dir().join("config").join("mesh.yaml");
        std::fs::create_dir(config.with_file_name(""))?;
        MeshConfig::of([&a, &b, &c]).write(&config)?;
        let cluster = Cluster::start(&lab)?;
        let settings = |node: u8| {
            FairleadNode::on(lab.node(node)).local_config(&config).local_ca(&lab.dir().join("ca"))
        };
        let url = cluster.url();
        let enrol = ["--enrol", "kubernetes", "--kube-api", &url];
        let n1 = settings(1).args(enrol).args(args).start()?;
        let n2 = settings(2).start()?;
        n2.enrol(&b)?;
        Ok(Self { n1, _n2: n2, cluster, a, c, b, _server: server, lab })
    }

    /// Makes `a` known, with a process.
    fn run_a(&self) -> Result<Container> {
        let uid = self.cluster.apply(&self.a, None, "Running")?;
        Container::start(&self.lab, &self.a, &uid)
    }

    fn wait_for_a(&self, is_in: bool) -> Result<()> {
        if is_in {
            wait_for_state(&self.n1, "shop/a", "ready")?;
        } else {
            wait_until_unlisted(&self.n1, "shop/a")?;
        }
        let reported = is_in.then_some("enabled");
        self.cluster.wait_for_redirection(&self.a, reported).with_context(|| self.n1.complaints())
    }

    /// Fails unless a request from `a` is answered, over mutual TLS or not.
    fn assert_encrypted(&self, is_encrypted: bool) -> Result<()> {
        let wire = self.lab.capture_wire()?;
        assert!(curl(&self.a, self.b.v4(HTTP))?.is_ok(), "{}", self.n1.complaints());
        let dialled = wire.finish()?.ports_dialled()?;
        assert_ne!(dialled.contains_key(&HTTP), is_encrypted, "{dialled:?}");
        Ok(())
    }
}

#[test]
fn pods_enter_and_leave_the_mesh_by_labels_and_their_annotation_says_so() -> Result<()> {
    let scene = Scene::new("labels")?;
    let _process = scene.run_a()?;
    let uid = scene.cluster.apply(&scene.c, None, "Running")?;
    let _c_process = Container::start_with_systemd(&scene.lab, &scene.c, &uid)?;
    scene.assert_encrypted(false)?;

    scene.cluster.label_namespace(Some("ambient"))?;
    scene.wait_for_a(true)?;
    let c = wait_for_state(&scene.n1, "shop/c", "ready")?;
    assert_eq!(
        c["netns"],
        *scene.c.netns().path().to_string_lossy(),
        "its mount, which is there longer"
    );
    assert_eq!((&c["origin"], &c["uid"]), (&"agent".into(), &uid.into()));
    scene.assert_encrypted(true)?;

    scene.cluster.apply(&scene.a, Some("none"), "Running")?;
    scene.wait_for_a(false)?;
    scene.assert_encrypted(false)?;
    assert!(listed(&scene.n1, "shop/c")?.is_some());
    let refused = scene.n1.pod_command(&["remove", "shop/c"])?;
    assert!(refused.stderr.contains("istio.io/dataplane-mode=none"), "{refused:?}");

    scene.cluster.apply(&scene.a, None, "Running")?;
    scene.wait_for_a(true)?;
    scene.cluster.apply(&scene.c, None, "Succeeded")?;
    wait_until_unlisted(&scene.n1, "shop/c")?;
    scene.cluster.label_namespace(None)?;
    scene.wait_for_a(false)?;
    scene.assert_encrypted(false)
}

#[test]
fn a_pod_that_cannot_be_found_waits_visibly_and_is_found_by_its_processes_as_they_change()
-> Result<()> {
    // A runtime that mounts no namespaces.
    let scene = Scene::with_args("found", &["--netns-dir", "/nonexistent"])?;
    let uid = scene.cluster.apply(&scene.a, Some("ambient"), "Running")?;
    let waits_because = |reason: &str| {
        wait_for(reason, SOON, || {
            let found = listed(&scene.n1, "shop/a")?.filter(|found| found["state"] == "waiting");
            Ok(found.filter(|found| found["problem"].to_string().contains(reason)).map(drop))
        })
        .with_context(|| scene.n1.complaints())
    };
    waits_because("no process of the pod")?;
    scene.cluster.wait_for_redirection(&scene.a, Some("pending"))?;
    let waiting = scene.n1.metrics()?.sum("fairlead_pods_waiting", &[]);
    assert!((waiting - 1.0).abs() < f64::EPSILON, "{waiting}");

    // A process that is in another pod's network.
    let stranger = Container::start(&scene.lab, &scene.c, &uid)?;
    waits_because("has not the address")?;
    let first = Container::start(&scene.lab, &scene.a, &uid)?;
    scene.wait_for_a(true)?;
    assert_eq!(listed(&scene.n1, "shop/a")?.context("gone")?["netns"], first.netns());
    drop(stranger);
    scene.assert_encrypted(true)?;

    let second = Container::start(&scene.lab, &scene.a, &uid)?;
    drop(first);
    wait_for("the other process is noticed", SOON, || {
        let found = listed(&scene.n1, "shop/a")?.context("the pod was released")?;
        Ok((found["netns"] == second.netns()).then_some(()))
    })?;
    scene.assert_encrypted(true)?;
    drop(second);
    waits_because("no process of the pod")
}

#[test]
fn enrolled_pods_stay_so_while_the_api_server_is_away_and_after_any_restart() -> Result<()> {
    let mut scene = Scene::new("apiless")?;
    let _process = scene.run_a()?;
    // Enrolled by hand: not the agent's.
    scene.n1.enrol(&scene.c)?;
    scene.cluster.label_namespace(Some("ambient"))?;
    scene.wait_for_a(true)?;

    scene.cluster.go_away();
    scene.n1.kill_half(Half::Agent)?;
    scene.n1.kill_half(Half::Capture)?;
    wait_for_state(&scene.n1, "shop/a", "ready")?;
    let settings = scene.n1.settings();
    scene.n1.kill()?;
    scene.n1 = settings.start()?;
    wait_for_state(&scene.n1, "shop/a", "ready")?;
    scene.assert_encrypted(true)?;

    // What happens meanwhile is made up for.
    scene.cluster.label_namespace(None)?;
    scene.assert_encrypted(true)?;
    scene.cluster.come_back();
    scene.wait_for_a(false)?;
    scene.assert_encrypted(false)?;
    assert_eq!(wait_for_state(&scene.n1, "shop/c", "ready")?["origin"], "operator");
    Ok(())
}

#[test]
fn a_pod_that_comes_back_under_the_same_name_is_another_one() -> Result<()> {
    let mut scene = Scene::new("again")?;
    let process = scene.run_a()?;
    scene.cluster.label_namespace(Some("ambient"))?;
    scene.wait_for_a(true)?;
    let before = listed(&scene.n1, "shop/a")?.context("not listed")?;

    drop(process);
    scene.a.delete()?;
    scene.cluster.delete(&scene.a)?;
    let spec = PodSpec::new("a").namespace("shop").service_account("a");
    let number = scene.a.ipv4().octets()[3];
    scene.a = scene.lab.node(1).add_pod(spec.host_number(number))?;
    let _process = scene.run_a()?;
    wait_for("the new pod", SOON, || {
        let found = listed(&scene.n1, "shop/a")?.filter(|found| found["uid"] != before["uid"]);
        Ok(found.filter(|found| found["state"] == "ready"))
    })
    .with_context(|| scene.n1.complaints())?;
    scene.cluster.wait_for_redirection(&scene.a, Some("enabled"))?;
    scene.assert_encrypted(true)
}
