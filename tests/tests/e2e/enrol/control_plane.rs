//! Operators say where the pods' networks are, and the control plane which pods take part.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use fairlead_lab::{
    Child, FairleadBuilder, FairleadNode, Half, Host as _, Lab, Pod, PodSpec, fairlead_program,
    python, wait_for,
};

use super::{SOON, wait_for_state, wait_until_unlisted};
use crate::{clients::curl, mesh::HTTP};

/// Port of the control plane.
const PORT: u16 = 15012;

/// Port of its admin interface.
const ADMIN_PORT: u16 = 15014;

const TOKENS: [(&str, &str); 2] =
    [("n1", "the-token-of-the-first-node"), ("n2", "the-token-of-the-second-node")];

/// Two nodes, each with a pod, that follow a control plane on the first.
struct Scene {
    n1: FairleadNode,
    n2: FairleadNode,
    control: Child,
    a: Pod,
    b: Pod,
    _server: Child,
    lab: Lab,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let lab = Lab::new(name)?;
        let pod = |node: u8, name: &str| {
            let spec = PodSpec::new(name).namespace("shop").service_account(name);
            lab.node(node).add_pod(spec)
        };
        let (a, b) = (pod(1, "a")?, pod(2, "b")?);
        let server = b.serve(python("http_server.py", &[HTTP.to_string()]), HTTP)?;
        fs::create_dir(mesh_dir(&lab))?;
        fs::write(mesh_dir(&lab).join("pods.yaml"), pod_yaml(&a) + &pod_yaml(&b))?;
        write_namespace(&lab, false)?;
        for (node, token) in TOKENS {
            let dir = lab.dir().join(format!("token-{node}"));
            fs::create_dir(&dir)?;
            fs::write(dir.join("token"), token)?;
        }
        let control = start_control(&lab)?;
        let (n1, n2) = (settings(&lab, 1).start()?, settings(&lab, 2).start()?);
        Ok(Self { n1, n2, control, a, b, _server: server, lab })
    }

    /// Registers both pods.
    fn register(&self) -> Result<()> {
        for (node, pod) in [(&self.n1, &self.a), (&self.n2, &self.b)] {
            let said = node.enrol(pod)?.stdout;
            assert!(said.contains("registered, out"), "{said}");
        }
        Ok(())
    }

    fn opt_in(&self, opted_in: bool) -> Result<()> {
        write_namespace(&self.lab, opted_in)?;
        let state = if opted_in { "ready" } else { "out" };
        wait_for_state(&self.n1, "shop/a", state)?;
        wait_for_state(&self.n2, "shop/b", state)?;
        Ok(())
    }

    /// Returns whether a request from one pod to the other crosses the wire as it is; fails unless
    /// it is answered, and if it crosses in another way too.
    fn crosses_plainly(&self) -> Result<bool> {
        let wire = self.lab.capture_wire()?;
        assert!(curl(&self.a, self.b.v4(HTTP))?.is_ok(), "{}", self.n1.complaints());
        let dialled = wire.finish()?.ports_dialled()?;
        let is_plain = dialled.contains_key(&HTTP);
        // The tunnel may have been there before.
        assert!(!is_plain || !dialled.contains_key(&15008), "{dialled:?}");
        Ok(is_plain)
    }
}

fn mesh_dir(lab: &Lab) -> PathBuf {
    lab.dir().join("mesh")
}

fn pod_yaml(pod: &Pod) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{nodeName: {node}, serviceAccountName: {account}, containers: []}}
status: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: \"{v6}\"}}]}}
---",
        name = pod.name(),
        namespace = pod.namespace(),
        node = pod.node(),
        account = pod.service_account(),
        v4 = pod.ipv4(),
        v6 = pod.ipv6(),
    )
}

fn write_namespace(lab: &Lab, opted_in: bool) -> Result<()> {
    let labels = if opted_in { "{istio.io/dataplane-mode: ambient}" } else { "{}" };
    let yaml =
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {labels}}}");
    let fresh = lab.dir().join("namespace.new");
    fs::write(&fresh, yaml)?;
    Ok(fs::rename(fresh, mesh_dir(lab).join("namespace.yaml"))?)
}

/// Starts the control plane on node 1, which has the other programs' build.
fn start_control(lab: &Lab) -> Result<Child> {
    let tokens = lab.dir().join("tokens");
    let lines = TOKENS.map(|(node, token)| format!("{token} {node} istio-system/ztunnel\n"));
    fs::write(&tokens, lines.concat())?;
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600))?;
    let program = fairlead_program().with_file_name("fairlead-control");
    let node = lab.node(1);
    let mut command = Command::new(program);
    command.arg("--config-dir").arg(mesh_dir(lab)).arg("--token-file").arg(tokens);
    command.arg("--ca-dir").arg(ca_dir(lab)).args(["--service-name", &node.ipv4().to_string()]);
    let mut control = node.spawn(command)?;
    wait_for("the control plane is ready", SOON, || {
        if !control.is_running()? {
            control.wait(SOON)?.checked()?;
        }
        let ready = node.http_get(([127, 0, 0, 1], ADMIN_PORT).into(), "/ready");
        Ok(ready.is_ok_and(|response| response.status == 200).then_some(()))
    })
    .with_context(|| control.stderr().unwrap_or_default())?;
    // The proxies, other users, are to read it.
    publish_root(lab)?;
    Ok(control)
}

fn ca_dir(lab: &Lab) -> PathBuf {
    lab.dir().join("ca")
}

fn root_file(lab: &Lab) -> PathBuf {
    lab.dir().join("root").join("root-cert.pem")
}

fn publish_root(lab: &Lab) -> Result<()> {
    let file = root_file(lab);
    fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
    fs::copy(ca_dir(lab).join("root-cert.pem"), &file)?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o644))?)
}

fn settings(lab: &Lab, number: u8) -> FairleadBuilder {
    let node = lab.node(number);
    let address = format!("{}:{PORT}", lab.node(1).ipv4());
    let token = lab.dir().join(format!("token-{}", node.name())).join("token");
    FairleadNode::on(node).args([
        "--enrol",
        "control-plane",
        "--xds-address",
        &address,
        "--xds-root-ca",
        &root_file(lab).to_string_lossy(),
        "--auth-token",
        &token.to_string_lossy(),
    ])
}

#[test]
fn registered_pods_are_in_the_mesh_while_the_control_plane_says_so() -> Result<()> {
    let scene = Scene::new("directory")?;
    scene.register()?;
    let out = wait_for_state(&scene.n1, "shop/a", "out")?;
    wait_for("what to do is said", SOON, || {
        let listed = scene.n1.enrolled()?;
        Ok(listed.contains("istio.io/dataplane-mode=ambient").then_some(()))
    })?;
    assert_eq!(out["service_account"], "a");
    assert!(scene.crosses_plainly()?);

    scene.opt_in(true)?;
    assert!(!scene.crosses_plainly()?);
    scene.opt_in(false)?;
    assert!(scene.crosses_plainly()?);

    scene.opt_in(true)?;
    assert!(!scene.crosses_plainly()?);
    scene.n1.release(&scene.a)?;
    wait_until_unlisted(&scene.n1, "shop/a")?;
    Ok(())
}

#[test]
fn nothing_is_released_while_the_control_plane_is_away_or_the_agent_or_everything() -> Result<()> {
    let mut scene = Scene::new("away")?;
    scene.register()?;
    scene.opt_in(true)?;
    scene.control.kill()?;
    assert!(!scene.crosses_plainly()?);

    let agent = scene.n1.pid_of(Half::Agent)?;
    scene.n1.kill_half(Half::Agent)?;
    wait_for("another agent", SOON, || {
        let agents = scene.n1.pids_of(Half::Agent)?;
        Ok((!agents.is_empty() && !agents.contains(&agent)).then_some(()))
    })?;
    scene.n1.kill_half(Half::Capture)?;
    wait_for_state(&scene.n1, "shop/a", "ready")?;
    assert!(!scene.crosses_plainly()?);

    scene.control = start_control(&scene.lab)?;
    let settings = scene.n1.settings();
    scene.n1.kill()?;
    scene.n1 = settings.start()?;
    wait_for_state(&scene.n1, "shop/a", "ready")?;
    assert!(!scene.crosses_plainly()?);
    scene.opt_in(false)?;
    assert!(scene.crosses_plainly()?);
    Ok(())
}
