//! What to try in a demo that was left running.

use super::mesh::{vip, vip_v6};
use crate::workspace;
use fairlead_lab::mesh::{HTTP, Mesh};
use fairlead_lab::{FairleadNode, Host};

/// Prints commands with a word on each.
pub(super) fn print(mesh: &Mesh) {
    let node = workspace::target("release/fairlead-node");
    let node = node.display();
    let outside = mesh.b.v4(HTTP);
    println!("\nThe demo goes on running until another demo, test or benchmark starts. As root:");
    for (what, command) in [
        (
            "a request through the mesh",
            format!("{} curl -v 'http://{}/'", inside(&mesh.a), vip(80)),
        ),
        ("the same over IPv6", format!("{} curl -v 'http://{}/'", inside(&mesh.a), vip_v6(80))),
        ("from outside the mesh", format!("{} curl 'http://{outside}/'", inside(&mesh.outsider))),
        ("packets between the nodes", format!("{} tshark -i wire", inside(mesh.lab.node(1)))),
        ("a shell in pod a", format!("{} bash", inside(&mesh.a))),
        ("enrolled pods of node 1", pod_command(&node, &mesh.n1, "list")),
        ("release pod c, then enrol it", pod_command(&node, &mesh.n1, "remove tools/c")),
        ("", pod_command(&node, &mesh.n1, &add(mesh))),
        ("policies: edit and save", format!("$EDITOR {}", mesh.config_path().display())),
        ("access log", format!("tail -f {}/0001-*.stdout", mesh.lab.dir().display())),
        ("metrics", format!("{} curl -s http://localhost:15020/metrics", inside(mesh.lab.node(1)))),
        ("remove everything", "cargo xtask demo --clean".to_owned()),
    ] {
        println!("   {what:30} {command}");
    }
    // It mounts a /sys of its own, in which the BPF file system and the cgroups are missing.
    println!("   (ip netns exec works for clients too, but not for starting fairlead-node)");
}

fn inside(host: &impl Host) -> String {
    format!("nsenter --net={}", host.netns().path().display())
}

fn pod_command(binary: &impl std::fmt::Display, proxy: &FairleadNode, rest: &str) -> String {
    format!("{binary} pod {rest} --run-dir {}", proxy.run_dir().display())
}

fn add(mesh: &Mesh) -> String {
    let c = &mesh.c;
    let (namespace, name, account) = (c.namespace(), c.name(), c.service_account());
    let netns = c.netns().path().display();
    format!("add --namespace {namespace} --name {name} --service-account {account} --netns {netns}")
}
