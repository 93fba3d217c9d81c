use mesh_api::{
    proto::workload::{NetworkMode, TunnelProtocol, WorkloadStatus, WorkloadType},
    workload::Workload as Domain,
};

use crate::{
    fixture::{applied, mesh, pod, workload, workloads},
    mesh::{Mesh, Options},
};

const SERVICE: &str = "---
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: \
 cart}, ports: [{name: a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: other}, \
 {name: c, port: 82}]}}
";

fn ports(mesh: &Mesh, name: &str) -> Vec<(String, Vec<(u32, u32)>)> {
    let services = workload(mesh, name).services.into_iter();
    services
        .map(|(key, list)| {
            let ports = list.ports.iter().map(|port| (port.service_port, port.target_port));
            (key, ports.collect())
        })
        .collect()
}

#[test]
fn a_pod_becomes_a_workload() {
    let mesh = mesh(
        "---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: r, \
         topology.kubernetes.io/zone: z, topology.istio.io/subzone: s}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: cart-6d4b-x
  namespace: shop
  labels: {app: cart, version: v2, pod-template-hash: 6d4b}
  ownerReferences: [{kind: ReplicaSet, name: cart-6d4b, controller: true}]
spec: {nodeName: n1, serviceAccountName: cart}
status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], conditions: [{type: Ready, status: 'True'}]}
",
    );
    let workload = workload(&mesh, "cart-6d4b-x");
    assert_eq!(workload.uid, "Kubernetes//Pod/shop/cart-6d4b-x");
    assert_eq!(workload.addresses.len(), 2);
    assert_eq!(workload.tunnel_protocol(), TunnelProtocol::Hbone);
    assert_eq!(workload.status(), WorkloadStatus::Healthy);
    assert_eq!((&*workload.node, &*workload.cluster_id), ("n1", "Kubernetes"));
    assert_eq!(workload.workload_type(), WorkloadType::Deployment);
    assert_eq!((&*workload.workload_name, &*workload.canonical_name), ("cart", "cart"));
    assert_eq!((&*workload.canonical_revision, &*workload.trust_domain), ("v2", ""));
    let locality = workload.locality.clone().unwrap();
    assert_eq!((&*locality.region, &*locality.zone, &*locality.subzone), ("r", "z", "s"));
    let domain = Domain::try_from(workload).unwrap();
    assert_eq!(domain.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    let aliases: Vec<_> = mesh.resources().flat_map(|r| r.aliases.iter().cloned()).collect();
    assert_eq!(aliases, ["/10.0.0.1".into(), "/fd00::1".into()] as [Box<str>; 2]);
}

#[test]
fn pods_that_carry_no_traffic_are_left_out() {
    let pod = |status: &str| {
        let yaml =
            format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, status: {{{status}}}}}");
        workloads(&mesh(&yaml)).len()
    };
    assert_eq!(pod("podIP: 10.0.0.1"), 1);
    assert_eq!(pod("podIP: 10.0.0.1, phase: Pending"), 1);
    assert_eq!(pod("podIP: 10.0.0.1, phase: Succeeded"), 0);
    assert_eq!(pod("podIP: 10.0.0.1, phase: Failed"), 0);
    assert_eq!(pod("phase: Running"), 0);
}

#[test]
fn health_is_reported_or_taken_for_granted() {
    let status = |options: Options, conditions: &str, metadata: &str| {
        let mut mesh = Mesh::new(options);
        mesh.apply(applied(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, {metadata}}}, status: {{podIP: \
             10.0.0.1, conditions: [{conditions}]}}}}"
        )));
        workload(&mesh, "p").status()
    };
    let (healthy, unhealthy) = (WorkloadStatus::Healthy, WorkloadStatus::Unhealthy);
    let (reported, declared) = (Options::default, crate::fixture::declared);
    let ready = "{type: Ready, status: 'True'}";
    let not_ready = "{type: Ready, status: 'False'}";
    let deleting = "deletionTimestamp: '2026-01-01T00:00:00Z'";
    assert_eq!(status(reported(), ready, ""), healthy);
    assert_eq!(status(reported(), "", ""), unhealthy);
    assert_eq!(status(declared(), "", ""), healthy);
    assert_eq!(status(declared(), not_ready, ""), unhealthy);
    assert_eq!(status(declared(), ready, deleting), unhealthy);
}

#[test]
fn who_receives_hbone_is_reported_or_declared() {
    let protocol = |options: Options, metadata: &str, spec: &str| {
        let mut mesh = Mesh::new(options);
        mesh.apply(applied(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, {metadata}}}, spec: {{{spec}}}, \
             status: {{podIP: 10.0.0.1}}}}"
        )));
        let workload = workload(&mesh, "p");
        (workload.tunnel_protocol() == TunnelProtocol::Hbone, workload.native_tunnel)
    };
    let (reported, declared) = (Options::default, crate::fixture::declared);
    let annotated = "annotations: {ambient.istio.io/redirection: enabled}";
    let pending = "annotations: {ambient.istio.io/redirection: pending}";
    let labelled = "labels: {istio.io/dataplane-mode: ambient}";
    let native = "labels: {networking.istio.io/tunnel: http}";
    assert_eq!(protocol(reported(), annotated, ""), (true, false));
    assert_eq!(protocol(reported(), pending, ""), (false, false));
    assert_eq!(protocol(reported(), labelled, ""), (false, false));
    assert_eq!(protocol(declared(), labelled, ""), (true, false));
    assert_eq!(protocol(declared(), labelled, "hostNetwork: true"), (false, false));
    assert_eq!(protocol(reported(), native, ""), (true, true));
}

#[test]
fn ports_of_services_are_resolved_for_each_pod() {
    let other = pod("other", "10.0.0.2", "app: cart").replace("name: web", "name: other");
    let mesh = mesh(&(SERVICE.to_owned() + &pod("cart", "10.0.0.1", "app: cart") + &other));
    let key = "shop/cart.shop.svc.cluster.local".to_owned();
    assert_eq!(ports(&mesh, "cart"), [(key.clone(), vec![(80, 8080), (82, 82)])]);
    assert_eq!(ports(&mesh, "other"), [(key, vec![(81, 8080), (82, 82)])]);
}

#[test]
fn a_host_network_pod_says_so() {
    let mesh = mesh(&pod("p", "10.0.0.1", "").replace("nodeName: n1", "hostNetwork: true"));
    assert_eq!(workload(&mesh, "p").network_mode(), NetworkMode::HostNetwork);
}

#[test]
fn a_service_entry_selects_pods_and_workload_entries() {
    let mesh = mesh(
        &("---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: shop}, spec: \
           {hosts: [a.example.com, b.example.com], resolution: STATIC, location: MESH_INTERNAL, \
           workloadSelector: {labels: {app: cart}}, ports: [{number: 80, name: web}, {number: 81, \
           name: x, targetPort: 8081}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm, namespace: shop, \
           labels: {app: other}}, spec: {address: 10.0.1.1, labels: {app: cart}, ports: {x: 99}, \
           weight: 5, locality: r/z, serviceAccount: vm, network: n2}, status: {conditions: [{type: \
           Healthy, status: 'False'}]}}
"
        .to_owned()
            + &pod("cart", "10.0.0.1", "app: cart")),
    );
    let expected = |ports: Vec<(u32, u32)>| {
        ["shop/a.example.com", "shop/b.example.com"].map(|key| (key.to_owned(), ports.clone()))
    };
    assert_eq!(ports(&mesh, "cart"), expected(vec![(80, 8080), (81, 8081)]));
    assert_eq!(ports(&mesh, "vm"), expected(vec![(80, 80), (81, 99)]));
    let vm = workload(&mesh, "vm");
    assert_eq!(vm.uid, "Kubernetes/networking.istio.io/WorkloadEntry/shop/vm");
    assert_eq!((vm.capacity, &*vm.network, &*vm.service_account), (Some(5), "n2", "vm"));
    assert_eq!(vm.status(), WorkloadStatus::Unhealthy);
    assert_eq!((&*vm.canonical_name, &*vm.canonical_revision), ("cart", "latest"));
    let locality = vm.locality.clone().unwrap();
    assert_eq!((&*locality.region, &*locality.zone, &*locality.subzone), ("r", "z", ""));
    Domain::try_from(vm).unwrap();
}

#[test]
fn endpoints_of_a_service_entry_become_workloads() {
    let entry = |spec: &str| {
        let mesh = mesh(&format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: e, \
             namespace: shop}}, spec: {{hosts: [a.b, c.d], ports: [{{number: 80, name: web}}], \
             {spec}}}}}"
        ));
        let workloads = workloads(&mesh).into_iter();
        workloads
            .map(|(uid, w)| {
                (uid.rsplit_once('/').unwrap().1.to_owned(), w.hostname, w.services.len())
            })
            .collect::<Vec<_>>()
    };
    let row = |uid: &str, host: &str, services| (uid.to_owned(), host.to_owned(), services);
    let inline = "resolution: STATIC, endpoints: [{address: 10.0.0.1}, {address: 10.0.0.1}]";
    assert_eq!(entry(inline), [row("10.0.0.1", "", 2)]);
    let named = "resolution: DNS, endpoints: [{address: x.y}]";
    assert_eq!(entry(named), [row("x.y", "x.y", 2)]);
    assert_eq!(entry("resolution: DNS"), [row("a.b", "a.b", 1), row("c.d", "c.d", 1)]);
    assert_eq!(entry("resolution: NONE"), []);
    let unix = "resolution: STATIC, endpoints: [{address: 'unix:///a'}]";
    assert_eq!(entry(unix), []);
}

#[test]
fn addresses_of_slices_that_are_no_pods_become_workloads() {
    let slice = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints:
- {addresses: [10.9.0.1]}
- {addresses: [10.9.0.2], conditions: {ready: false}}
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: cart, namespace: shop}}
ports: [{name: sql, port: 5432, protocol: TCP}, {name: sql2, port: 1}]
";
    let service = |spec: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: db, namespace: shop}}, spec: \
             {{{spec}ports: [{{name: sql, port: 3306}}, {{name: x, port: 1}}]}}}}\n"
        )
    };
    let cart = pod("cart", "10.0.0.1", "app: cart");
    assert_eq!(workloads(&mesh(&(slice.to_owned() + &cart))).len(), 1, "no service");

    let without_selector = mesh(&(slice.to_owned() + &cart + &service("")));
    let uid = "Kubernetes/discovery.k8s.io/EndpointSlice/shop/db-1/10.9.0.2";
    let workload = workloads(&without_selector).remove(uid).unwrap();
    assert_eq!(workload.status(), WorkloadStatus::Unhealthy);
    assert_eq!(workload.network_mode(), NetworkMode::HostNetwork);
    let key = "shop/db.shop.svc.cluster.local".to_owned();
    let ports_of_slice: Vec<_> =
        workload.services[&key].ports.iter().map(|p| (p.service_port, p.target_port)).collect();
    assert_eq!(ports_of_slice, [(3306, 5432)]);
    assert_eq!(ports(&without_selector, "cart"), [(key, vec![(3306, 3306), (1, 1)])]);

    let with_selector = mesh(&(slice.to_owned() + &cart + &service("selector: {app: db}, ")));
    assert_eq!(ports(&with_selector, "cart"), []);
    assert_eq!(workloads(&with_selector).len(), 3);
}
