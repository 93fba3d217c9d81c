//! Steps 3 and 4: who may reach whom, in plaintext and by policy.

use super::look::{curl, established, say, talk};
use super::mesh::{SOON, access_after, vip};
use super::report::Report;
use anyhow::Result;
use fairlead_lab::mesh::{ECHO, HTTP, Mesh};
use fairlead_lab::{PeerAuthentication, PeerMode, Policy, PolicyAction, Scope, wait_for};
use std::time::Instant;

const POLICY: &str = "only-a";

/// Step 3: pods that are not enrolled, as clients and as servers.
pub(super) fn outsiders(mesh: &mut Mesh, report: &Report) -> Result<()> {
    let server = mesh.b.v4(HTTP);
    let capture = mesh.lab.capture_wire()?;
    report.did("outsider", &format!("curl http://{server}/ (b is PERMISSIVE)"));
    curl(&mesh.outsider, server, "from-outside")?.succeeded(report, "answer")?;
    let outside = mesh.outsider.v4(HTTP);
    report.did("b", &format!("curl http://{outside}/ (an enrolled pod calls the outsider)"));
    let fetch = curl(&mesh.b, outside, "from-inside")?;
    fetch.succeeded(report, "answer")?;
    let own = mesh.b.ipv4().to_string();
    report.same("client that the outsider sees", &fetch.answered("peer"), &own)?;
    let wire = capture.finish()?;
    for path in ["from-outside", "from-inside"] {
        let seen = if wire.contains(path.as_bytes())? { "readable" } else { "unreadable" };
        report.same(&format!("request {path} on the wire"), &seen, &"readable")?;
    }
    strict(mesh, report)
}

/// Step 4: a policy that allows one service account.
pub(super) fn policy(mesh: &mut Mesh, report: &Report) -> Result<()> {
    report.did("c", &format!("a connection to {} that stays open", vip(ECHO)));
    let mut open = talk(&mesh.c, vip(ECHO))?;
    report.holds("bytes go and come", say(&mut open, "hello")?, "echoed", "an echo")?;
    let peer = vip(ECHO).to_string();
    let seen = established(&mesh.c)?;
    let listed = seen.iter().any(|line| line.contains(&peer));
    report.holds("ss in c lists it", listed, &peer, format!("{peer} among {seen:?}"))?;

    let changed = Instant::now();
    allow_only_a(mesh, report)?;
    let ended = wait_for("the end of the connection", SOON, || {
        let output = open.stdout()?;
        Ok(["closed", "reset"].into_iter().find(|word| output.contains(word)))
    });
    let seen = ended.as_ref().map_or("open", |word| word);
    report.holds("the open connection of c", ended.is_ok(), seen, "closed or reset")?;
    report.note("since the file was changed", format!("{} ms", changed.elapsed().as_millis()));

    let known = mesh.n2.access_log()?.len();
    report.did("a and c", &format!("curl http://{}/", vip(80)));
    curl(&mesh.a, vip(80), "")?.succeeded(report, "a")?;
    curl(&mesh.c, vip(80), "")?.failed(report, "c")?;
    refusal_is_logged(mesh, report, known)?;

    mesh.config.policies.clear();
    if let Some(workload) = mesh.config.workload_mut(&mesh.b) {
        workload.authorization_policies.clear();
    }
    mesh.apply()?;
    report.did("mesh.yaml", "the policy is removed");
    curl(&mesh.c, vip(80), "")?.succeeded(report, "c")
}

fn strict(mesh: &mut Mesh, report: &Report) -> Result<()> {
    report.did("mesh.yaml", "PeerAuthentication STRICT for b");
    mesh.config.peer_authentications = vec![PeerAuthentication::of_pod(&mesh.b, PeerMode::Strict)];
    mesh.apply()?;
    let server = mesh.b.v4(HTTP);
    let known = mesh.n2.access_log()?.len();
    curl(&mesh.outsider, server, "")?.failed(report, "outsider")?;
    let line = access_after(&mesh.n2, known, |line| line.is("direction", "inbound"))?;
    report.note("reason in n2's access log", line.get("reason").unwrap_or_default());
    curl(&mesh.a, server, "")?.succeeded(report, "a, through the mesh")?;
    mesh.config.peer_authentications.clear();
    mesh.apply()?;
    report.did("mesh.yaml", "PERMISSIVE again");
    curl(&mesh.outsider, server, "")?.succeeded(report, "outsider")
}

fn allow_only_a(mesh: &mut Mesh, report: &Report) -> Result<()> {
    report.did("mesh.yaml", &format!("policy shop/{POLICY}: ALLOW from {}", mesh.a.identity()));
    let policy = Policy::new(PolicyAction::Allow, "shop", POLICY);
    mesh.config.policies = vec![policy.scope(Scope::WorkloadSelector).from_pod(&mesh.a)];
    if let Some(workload) = mesh.config.workload_mut(&mesh.b) {
        workload.authorization_policies = vec![format!("shop/{POLICY}")];
    }
    mesh.apply()
}

fn refusal_is_logged(mesh: &Mesh, report: &Report, known: usize) -> Result<()> {
    report.did("n2", "access log of the refusal");
    let line = access_after(&mesh.n2, known, |line| line.is("src.workload", "c"))?;
    report.note("reason", line.get("reason").unwrap_or_default());
    let policy = line.get("policy").unwrap_or_default();
    report.same("policy", &policy, &format!("shop/{POLICY}"))
}
