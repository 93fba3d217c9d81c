//! What an enrolment must not do to another one.

use anyhow::{Context as _, Result};
use fairlead_lab::{FairleadNode, Host as _, Output, Pod, PodSpec, wait_for};

use super::listed;
use crate::{
    clients::{SOON, curl, say, talk},
    mesh::{ECHO, HTTP, Mesh},
};

/// Enrols the namespace of `pod` under another name and service account.
fn enrol_as(node: &FairleadNode, pod: &Pod, name: &str, account: &str) -> Result<Output> {
    let netns = pod.netns().path().to_string_lossy();
    let args = ["add", "--namespace", "shop", "--name", name, "--service-account", account];
    node.pod_command(&[args.as_slice(), &["--netns", &netns]].concat())
}

fn assert_refused(output: &Output, words: &[&str]) {
    assert!(!output.success(), "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "no \"{word}\": {}", output.stderr);
    }
}

#[test]
fn enrolling_a_pod_twice_changes_nothing() -> Result<()> {
    let mut mesh = Mesh::new("twice")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let mut open = talk(&mesh.a, b.v4(ECHO))?;
    say(&mut open, "before")?;
    let (list, objects) = (mesh.n1.enrolled()?, crate::bpf::Objects::of(&mesh.n1)?);
    mesh.n1.enrol(&mesh.a)?;
    assert_eq!(mesh.n1.enrolled()?, list);
    assert_eq!(crate::bpf::Objects::of(&mesh.n1)?, objects);
    say(&mut open, "after")?;
    assert!(curl(&mesh.a, b.v4(HTTP))?.is_ok());
    Ok(())
}

#[test]
fn enrolments_that_contradict_another_are_refused_and_leave_it_alone() -> Result<()> {
    let mesh = Mesh::new("conflict")?;
    let list = mesh.n1.enrolled()?;
    // The same namespace under another name, or the same name with another identity.
    assert_refused(&enrol_as(&mesh.n1, &mesh.a, "thief", "root")?, &["shop/a", "namespace"]);
    assert_refused(&enrol_as(&mesh.n1, &mesh.a, "a", "root")?, &["shop/a"]);
    assert_refused(&enrol_as(&mesh.n1, &mesh.outsider, "a", "a")?, &["shop/a"]);
    // The same address in another namespace.
    let double = mesh.lab.node(1).add_pod(PodSpec::new("double"))?;
    double.run(["ip", "addr", "flush", "dev", "eth0"])?.checked()?;
    let address = format!("{}/32", mesh.a.ipv4());
    double.run(["ip", "addr", "add", &address, "dev", "eth0"])?.checked()?;
    assert_refused(&mesh.n1.pod_command(&enrol_args(&double))?, &["shop/a", "address"]);
    assert_eq!(mesh.n1.enrolled()?, list);
    let answer = curl(&mesh.a, mesh.b.v4(HTTP))?;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(listed(&mesh.n1, "a")?.context("gone")?["identity"], mesh.a.identity());
    Ok(())
}

fn enrol_args(pod: &Pod) -> [&str; 7] {
    let path = pod.netns().path().to_str().unwrap_or_default();
    ["add", "--namespace", pod.namespace(), "--name", pod.name(), "--netns", path]
}

#[test]
fn namespaces_that_are_no_pods_are_refused() -> Result<()> {
    let mesh = Mesh::new("no-pod")?;
    let add = |netns: &str| {
        let args = ["add", "--namespace", "shop", "--name", "x", "--netns", netns];
        mesh.n1.pod_command(&args)
    };
    assert_refused(&add("/run/netns/no-such-namespace")?, &["/run/netns/no-such-namespace"]);
    assert_refused(&add("/etc/hostname")?, &["/etc/hostname"]);
    // Capturing the node itself would be the end of it.
    let own = mesh.lab.node(1).netns().path().to_string_lossy().into_owned();
    let output = add(&own)?;
    assert!(!output.success(), "the proxy's own namespace was enrolled");
    assert!(curl(&mesh.a, mesh.b.v4(HTTP))?.is_ok());
    Ok(())
}

fn routing(pod: &Pod) -> Result<String> {
    let script = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all";
    Ok(pod.run(["sh", "-c", script])?.checked()?.stdout)
}

#[test]
fn a_pod_that_is_enrolled_under_another_name_while_it_drains_keeps_its_routing() -> Result<()> {
    let mut mesh = Mesh::new("renamed")?;
    let b = mesh.b.clone();
    mesh.serve_echo(&b)?;
    let mut open = talk(&mesh.a, b.v4(ECHO))?;
    say(&mut open, "before")?;
    mesh.n1.release(&mesh.a)?;
    enrol_as(&mesh.n1, &mesh.a, "renamed", "a")?.checked()?;
    say(&mut open, "after")?;
    let before = routing(&mesh.a)?;
    drop(open);
    wait_for("a is forgotten", SOON, || Ok(listed(&mesh.n1, "a")?.is_none().then_some(())))?;
    assert_eq!(routing(&mesh.a)?, before);
    // Its values are those from before the first enrolment.
    mesh.n1.pod_command(&["remove", "shop/renamed"])?.checked()?;
    wait_for("it is forgotten", SOON, || Ok(listed(&mesh.n1, "renamed")?.is_none().then_some(())))?;
    assert_eq!(mesh.a.netns().sysctl("net/ipv4/tcp_fwmark_accept")?, "0");
    Ok(())
}

#[test]
fn releasing_a_pod_that_is_not_enrolled_says_so() -> Result<()> {
    let mesh = Mesh::new("unknown")?;
    let output = mesh.n1.pod_command(&["remove", "shop/nobody"])?;
    assert_refused(&output, &["shop/nobody", "not enrolled"]);
    mesh.n1.release(&mesh.a)?;
    let output = mesh.n1.pod_command(&["remove", "shop/a"])?;
    assert_refused(&output, &["shop/a", "not enrolled"]);
    Ok(())
}
