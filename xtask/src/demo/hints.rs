//! What to try in a demo that was left running.

use super::mesh::{vip, vip_v6};
use crate::workspace;
use fairlead_lab::bookinfo::Bookinfo;
use fairlead_lab::mesh::{ControlledMesh, HTTP, Mesh};
use fairlead_lab::{FairleadNode, Host, Pod};

/// Prints commands with a word on each.
pub(super) fn print(commands: Vec<(&'static str, String)>) {
    println!("\nThe demo goes on running until another demo, test or benchmark starts. As root:");
    for (what, command) in commands {
        println!("   {what:30} {command}");
    }
    println!("   {:30} cargo xtask demo --clean", "remove everything");
    // It mounts a /sys of its own, in which the BPF file system and the cgroups are missing.
    println!("   (ip netns exec works for clients too, but not for starting fairlead-node)");
}

/// What to try where a file describes the mesh.
pub(super) fn of_file(mesh: &Mesh) -> Vec<(&'static str, String)> {
    let mut commands = requests(&mesh.a, &mesh.b, &mesh.outsider);
    commands.extend(of_node(&mesh.n1));
    commands.extend([
        ("release pod c, then enrol it", pod_command(&mesh.n1, "remove tools/c")),
        ("", pod_command(&mesh.n1, &add(mesh))),
        ("policies: edit and save", format!("$EDITOR {}", mesh.config_path().display())),
    ]);
    commands
}

/// What to try where a control plane describes it.
pub(super) fn of_control_plane(mesh: &ControlledMesh) -> Vec<(&'static str, String)> {
    let mut commands = requests(&mesh.a, &mesh.b, &mesh.outsider);
    commands.extend(of_node(&mesh.n1));
    let host = inside(mesh.lab.node(3));
    let control = workspace::target("release/fairlead-control");
    let (control, ca) = (control.display(), mesh.plane.ca_dir());
    commands.extend([
        ("the mesh: edit and save", format!("ls {}", mesh.plane.config_dir().display())),
        ("what nodes were told", format!("{host} curl -s http://localhost:15014/debug/syncz")),
        ("replace the root", format!("{control} rotate-root --ca-dir {}", ca.display())),
    ]);
    commands
}

/// What to try with Bookinfo.
pub(super) fn of_bookinfo(mesh: &Bookinfo) -> Vec<(&'static str, String)> {
    let (client, waypoint) = (inside(&mesh.curl), inside(mesh.waypoint.pod()));
    let mut commands = vec![
        ("the page", format!("{client} curl -s http://{}/productpage", mesh.page_address())),
        ("rules: write, edit, remove", format!("ls {}", mesh.plane.config_dir().display())),
        (
            "what the waypoint knows",
            format!("{waypoint} curl -s http://localhost:15000/config_dump"),
        ),
        ("what it counted", format!("{waypoint} curl -s http://localhost:15020/stats/prometheus")),
    ];
    commands.extend(of_node(&mesh.n1));
    commands
}

fn requests(client: &Pod, server: &Pod, outsider: &Pod) -> Vec<(&'static str, String)> {
    let outside = server.v4(HTTP);
    vec![
        ("a request through the mesh", format!("{} curl -v 'http://{}/'", inside(client), vip(80))),
        ("the same over IPv6", format!("{} curl -v 'http://{}/'", inside(client), vip_v6(80))),
        ("from the outsider", format!("{} curl 'http://{outside}/'", inside(outsider))),
        ("a shell in pod a", format!("{} bash", inside(client))),
    ]
}

fn of_node(n1: &FairleadNode) -> Vec<(&'static str, String)> {
    let node = n1.node();
    let logs = node.lab_dir().join(format!("*-{}-fairlead-node.stdout", node.netns().name()));
    vec![
        ("packets between the nodes", format!("{} tshark -i any tcp", inside(node))),
        ("enrolled pods of node 1", pod_command(n1, "list")),
        ("access log", format!("tail -f {}", logs.display())),
        ("metrics", format!("{} curl -s http://localhost:15020/metrics", inside(node))),
    ]
}

fn inside(host: &impl Host) -> String {
    format!("nsenter --net={}", host.netns().path().display())
}

fn pod_command(proxy: &FairleadNode, rest: &str) -> String {
    let binary = proxy.binary().display();
    format!("{binary} pod {rest} --run-dir {}", proxy.run_dir().display())
}

fn add(mesh: &Mesh) -> String {
    let c = &mesh.c;
    let (namespace, name, account) = (c.namespace(), c.name(), c.service_account());
    let netns = c.netns().path().display();
    format!("add --namespace {namespace} --name {name} --service-account {account} --netns {netns}")
}
