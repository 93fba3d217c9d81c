//! The scenario of a control plane: the mesh is a directory of YAML, and every change is an edit.

use super::changes::endless_requests;
use super::hints;
use super::look::{Fetch, curl, only_tunnels, say, talk};
use super::mesh::{HBONE, SOON, access_after, vip};
use super::report::Report;
use super::stage::{Scene, Stage, node, pod};
use super::upgrade::{failures, more_answers};
use anyhow::Result;
use fairlead_lab::mesh::{ControlledMesh, ECHO, HTTP, file_of};
use fairlead_lab::{FairleadNode, Pod, PodSpec, manifest, shown_identity, wait_for};
use std::fs;
use std::time::{Duration, Instant};

/// Lifetime of certificates, in seconds: a root is replaced within two of them.
const TTL: &str = "20";

/// Time for that, and what a busy machine adds.
const ROTATION_TIMEOUT: Duration = Duration::from_mins(2);

const POLICY: &str = "only-a";

impl Stage for ControlledMesh {
    const SCENES: &'static [Scene<Self>] = &[
        Scene { title: "A namespace joins the mesh, and leaves it", play: label },
        Scene { title: "A policy, also for connections that are open", play: policy },
        Scene { title: "The root of all certificates is replaced under traffic", play: rotation },
        Scene { title: "The control plane stops, and nothing else does", play: absence },
        Scene { title: "A pod moves to the other node", play: moved },
    ];

    fn start() -> Result<Self> {
        let proxies = ["--enrol", "control-plane", "--svid-ttl", TTL];
        let plane = ["--certificate-ttl", &format!("{TTL}s"), "--drain-time", "1s"];
        let mut mesh = Self::with_args("demo", &proxies, &plane)?;
        // Says where its network is; whether it takes part is what the directory says.
        mesh.n1.enrol(&mesh.outsider)?;
        let b = mesh.b.clone();
        mesh.serve(&b, "echo.py", ECHO)?;
        for (proxy, pod) in [(&mesh.n1, &mesh.a), (&mesh.n1, &mesh.c), (&mesh.n2, &mesh.b)] {
            listed(proxy, pod, true)?;
        }
        Ok(mesh)
    }

    fn inventory(&self) -> Vec<(String, Vec<String>)> {
        let mut first = [&self.a, &self.c, &self.d].map(|of_mesh| pod(of_mesh, "")).to_vec();
        first.push(pod(&self.outsider, "not in the mesh"));
        let second = vec![pod(&self.b, ""), format!("service b     {}", vip(80))];
        let plane =
            vec![format!("fairlead-control --config-dir {}", self.plane.config_dir().display())];
        vec![
            (node(self.lab.node(1)), first),
            (node(self.lab.node(2)), second),
            (node(self.lab.node(3)), plane),
        ]
    }

    fn logs(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![("n1", self.n1.log()?), ("n2", self.n2.log()?), ("control", self.plane.log()?)])
    }

    fn hints(&self) -> Vec<(&'static str, String)> {
        hints::of_control_plane(self)
    }

    fn keep(self) {
        Self::keep(self);
    }
}

/// Step 1: a label takes a namespace into the mesh.
fn label(mesh: &mut ControlledMesh, report: &Report) -> Result<()> {
    let server = mesh.b.v4(HTTP);
    let capture = mesh.lab.capture_wire()?;
    report.did("outsider", &format!("curl http://{server}/"));
    curl(&mesh.outsider, server, "from-outside")?.succeeded(report, "answer")?;
    let shown = capture.finish()?.contains(b"from-outside")?;
    let seen = if shown { "readable" } else { "unreadable" };
    report.same("the request on the wire", &seen, &"readable")?;

    report.did("namespaces.yaml", &format!("namespace plain gets {}", manifest::AMBIENT));
    let changed = Instant::now();
    mesh.label_outsiders(manifest::AMBIENT)?;
    listed(&mesh.n1, &mesh.outsider, true)?;
    report.note("in the mesh since the edit", millis(changed));
    let (capture, known) = (mesh.lab.capture_wire()?, mesh.n2.access_log()?.len());
    report.did("outsider", &format!("curl http://{server}/"));
    curl(&mesh.outsider, server, "from-inside")?.succeeded(report, "answer")?;
    only_tunnels(report, &capture.finish()?, "from-inside")?;
    let line = access_after(&mesh.n2, known, |line| line.is("src.workload", "outsider"))?;
    let identity = line.get("src.identity").unwrap_or_default();
    report.same("its identity in n2's access log", &identity, &mesh.outsider.identity())?;

    report.did("namespaces.yaml", "the label is removed");
    mesh.label_outsiders("")?;
    listed(&mesh.n1, &mesh.outsider, false)?;
    curl(&mesh.outsider, server, "")?.succeeded(report, "outsider, in plaintext again")
}

/// Step 2: a policy that allows one service account.
fn policy(mesh: &mut ControlledMesh, report: &Report) -> Result<()> {
    report.did("c", &format!("a connection to {} that stays open", vip(ECHO)));
    let mut open = talk(&mesh.c, vip(ECHO))?;
    report.holds("bytes go and come", say(&mut open, "hello")?, "echoed", "an echo")?;

    report.did("policy.yaml", &format!("shop/{POLICY}: ALLOW from {}", mesh.a.identity()));
    let changed = Instant::now();
    mesh.plane.write("policy.yaml", &manifest::allow_only(["shop", POLICY], &[&mesh.a]))?;
    let ended = wait_for("the end of the connection", SOON, || {
        let output = open.stdout()?;
        Ok(["closed", "reset"].into_iter().find(|word| output.contains(word)))
    });
    let seen = ended.as_ref().map_or("open", |word| word);
    report.holds("the open connection of c", ended.is_ok(), seen, "closed or reset")?;
    report.note("since the file was written", millis(changed));
    report.did("a and c", &format!("curl http://{}/", vip(80)));
    curl(&mesh.a, vip(80), "")?.succeeded(report, "a")?;
    let known = mesh.n2.access_log()?.len();
    curl(&mesh.c, vip(80), "")?.failed(report, "c")?;
    let line = access_after(&mesh.n2, known, |line| line.is("src.workload", "c"))?;
    let policy = line.get("policy").unwrap_or_default();
    report.same("policy in n2's access log", &policy, &format!("shop/{POLICY}"))?;

    report.did("policy.yaml", "it is broken, then removed");
    mesh.plane.write("policy.yaml", "spec: {action: MAYBE")?;
    wait_for("a complaint", SOON, || {
        Ok(mesh.plane.log()?.contains("policy.yaml: ").then_some(()))
    })?;
    curl(&mesh.c, vip(80), "")?.failed(report, "c, under the last good version")?;
    mesh.plane.remove("policy.yaml")?;
    first_answer(mesh, |fetch| fetch.status.is_some())?.succeeded(report, "c, without it").map(drop)
}

/// Step 5: a pod of the same name begins elsewhere.
fn moved(mesh: &mut ControlledMesh, report: &Report) -> Result<()> {
    let before = mesh.b.clone();
    let fetch = curl(&mesh.a, vip(80), "")?;
    report.same("service b is answered by", &fetch.answered("own"), &before.ipv4().to_string())?;

    let spec = PodSpec::new("b").namespace("shop").service_account("b");
    let after = mesh.lab.node(1).add_pod(spec)?;
    for (program, port) in [("http_server.py", HTTP), ("echo.py", ECHO)] {
        mesh.serve(&after, program, port)?;
    }
    mesh.n1.enrol(&after)?;
    report.did(&file_of(&after), &format!("nodeName: n1, podIP: {}", after.ipv4()));
    let changed = Instant::now();
    mesh.write_pod(&after)?;
    let own = after.ipv4().to_string();
    let fetch = first_answer(mesh, |fetch| fetch.answered("own") == own)?;
    fetch.succeeded(report, "c")?;
    report.same("service b is answered by", &fetch.answered("own"), &own)?;
    report.note("since the file was written", millis(changed));
    report.did("n2", "the old pod is gone");
    mesh.n2.release(&before)?;
    before.delete()?;
    mesh.b = after;
    curl(&mesh.a, vip(80), "")?.succeeded(report, "a")
}

/// Step 3: another root, without a request that fails.
fn rotation(mesh: &mut ControlledMesh, report: &Report) -> Result<()> {
    report.did("a", &format!("curl http://{}/..., again and again", vip(80)));
    let mut traffic = endless_requests(&mesh.a)?;
    let roots = mesh.plane.root_cert();
    let old = fs::read_to_string(&roots)?;
    let ca = mesh.plane.ca_dir();
    report.did("n3", &format!("fairlead-control rotate-root (certificates live for {TTL} s)"));
    let asked = Instant::now();
    mesh.plane.run(&["rotate-root", "--ca-dir", &ca.to_string_lossy()])?.checked()?;
    let known = |wanted: usize| -> Result<Option<()>> {
        let text = fs::read_to_string(&roots)?;
        let has_old = text.contains(old.trim());
        Ok((text.matches("BEGIN").count() == wanted && has_old == (wanted == 2)).then_some(()))
    };
    wait_for("both roots", SOON, || known(2))?;
    report.note("the old root and the new one are trusted", millis(asked));
    wait_for("the new root alone", ROTATION_TIMEOUT, || known(1))?;
    report.note("the new root alone is", millis(asked));
    more_answers(&mut traffic)?;
    report.same("requests of a that failed", &failures(&traffic)?, &0)?;
    report.note("requests of a", traffic.stdout()?.lines().count());
    for pod in [&mesh.a, &mesh.b] {
        let shown = shown_identity(&mesh.outsider, pod.v4(HBONE), &roots)?;
        report.same(
            &format!("certificate of {}, by the new root", pod.name()),
            &shown,
            &pod.identity(),
        )?;
    }
    Ok(())
}

/// Step 4: what is known stays in force.
fn absence(mesh: &mut ControlledMesh, report: &Report) -> Result<()> {
    report.did("a", &format!("curl http://{}/..., again and again", vip(80)));
    let mut traffic = endless_requests(&mesh.a)?;
    let mut open = talk(&mesh.c, vip(ECHO))?;
    report.holds("a connection of c", say(&mut open, "before")?, "alive", "alive")?;
    let settings = mesh.plane.settings();
    report.did("n3", "kill -9 of fairlead-control");
    mesh.plane.kill()?;
    connected(mesh, false)?;
    more_answers(&mut traffic)?;
    report.same("requests of a that failed", &failures(&traffic)?, &0)?;
    report.holds("the connection of c", say(&mut open, "without")?, "alive", "alive")?;

    report.did("policy.yaml", &format!("shop/{POLICY} again, while nobody reads it"));
    mesh.plane.write("policy.yaml", &manifest::allow_only(["shop", POLICY], &[&mesh.a]))?;
    curl(&mesh.c, vip(80), "")?.succeeded(report, "c, as before")?;
    report.did("n3", "fairlead-control is started again");
    let started = Instant::now();
    mesh.plane = settings.start()?;
    connected(mesh, true)?;
    wait_for("the policy", SOON, || {
        Ok(curl(&mesh.c, vip(80), "")?.status.is_none().then_some(()))
    })?;
    curl(&mesh.c, vip(80), "")?.failed(report, "c")?;
    report.note("the policy holds, since the start", millis(started));
    more_answers(&mut traffic)?;
    report.same("requests of a that failed", &failures(&traffic)?, &0)?;
    mesh.plane.remove("policy.yaml")
}

/// Waits until `fairlead-node pod list` says that a pod is in the mesh, or is not.
fn listed(proxy: &FairleadNode, pod: &Pod, member: bool) -> Result<()> {
    let name = format!("{}/{}", pod.namespace(), pod.name());
    wait_for(&format!("{name} is listed as it should be"), SOON, || {
        let list = proxy.enrolled()?;
        let mut lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        Ok((lines.any(|words| words.starts_with(&[&name, "ready"])) == member).then_some(()))
    })
}

/// Waits until both proxies have a stream to the control plane, or have lost it.
fn connected(mesh: &ControlledMesh, connected: bool) -> Result<()> {
    wait_for("the proxies know of the control plane", SOON, || {
        let mut states = Vec::new();
        for proxy in mesh.nodes() {
            states.push(proxy.metrics()?.sum("fairlead_xds_connected", &[]) > 0.0);
        }
        Ok(states.iter().all(|state| *state == connected).then_some(()))
    })
}

/// Has `c` ask service b until the answer is as `wanted`.
fn first_answer(mesh: &ControlledMesh, wanted: impl Fn(&Fetch) -> bool) -> Result<Fetch> {
    wait_for("an answer", SOON, || {
        let fetch = curl(&mesh.c, vip(80), "")?;
        Ok(wanted(&fetch).then_some(fetch))
    })
}

fn millis(since: Instant) -> String {
    format!("{} ms", since.elapsed().as_millis())
}
