use mesh_api::{
    proto::workload::{
        AppProtocol, IpFamilies, LoadBalancing, Service, Visibility,
        load_balancing::{HealthPolicy, Mode, Scope},
    },
    workload::{PortTransport, Service as Domain},
};

use crate::{
    fixture::{applied, mesh, services},
    mesh::{Mesh, Warning},
};

fn service(spec: &str, metadata: &str) -> Option<Service> {
    let mesh = mesh(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: shop, {metadata}}}, \
         spec: {{{spec}}}}}"
    ));
    services(&mesh).into_values().next()
}

fn entry_yaml(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}, \
         namespace: {namespace}}}, spec: {{{spec}}}}}\n"
    )
}

fn addresses(service: &Service) -> Vec<String> {
    let domain = Domain::try_from(service.clone()).unwrap();
    domain.addresses.iter().map(|address| address.address.to_string()).collect()
}

#[test]
fn a_service_is_sent_with_its_addresses_and_ports() {
    let service = service(
        "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], ipFamilies: [IPv4, IPv6], ports: \
         [{name: http-a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: 8081}]",
        "",
    )
    .unwrap();
    assert_eq!(service.hostname, "cart.shop.svc.cluster.local");
    assert_eq!(addresses(&service), ["10.96.0.1/32", "fd00::1/128"]);
    let ports: Vec<_> =
        service.ports.iter().map(|p| (p.service_port, p.target_port, p.app_protocol())).collect();
    assert_eq!(ports, [(80, 0, AppProtocol::Http11), (81, 8081, AppProtocol::Unknown)]);
    assert_eq!(service.ip_families(), IpFamilies::Dual);
    assert!(service.canonical);
}

#[test]
fn a_headless_service_has_no_address_and_an_alias_is_not_sent() {
    assert_eq!(addresses(&service("clusterIP: None", "").unwrap()), [""; 0]);
    assert!(service("type: ExternalName, externalName: a.b", "").is_none());
}

#[test]
fn preferred_endpoints_follow_the_service_and_its_namespace() {
    let balancing = |scopes: &[Scope], mode: Mode, health: HealthPolicy| {
        Some(LoadBalancing {
            routing_preference: scopes.iter().map(|scope| (*scope).into()).collect(),
            mode: mode.into(),
            health_policy: health.into(),
        })
    };
    let zone = [Scope::Network, Scope::Region, Scope::Zone];
    let node = [Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node];
    let (ready, all) = (HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll);
    let annotation = "annotations: {networking.istio.io/traffic-distribution: PreferSameNode}";
    let cases = [
        ("", "", None),
        ("trafficDistribution: PreferClose", "", balancing(&zone, Mode::Failover, ready)),
        (
            "trafficDistribution: PreferSameZone",
            annotation,
            balancing(&zone, Mode::Failover, ready),
        ),
        ("trafficDistribution: PreferSameNode", "", balancing(&node, Mode::Failover, ready)),
        ("", annotation, balancing(&node, Mode::Failover, ready)),
        (
            "internalTrafficPolicy: Local, trafficDistribution: PreferClose",
            "",
            balancing(&[Scope::Node], Mode::Strict, ready),
        ),
        ("publishNotReadyAddresses: true", "", balancing(&[], Mode::UnspecifiedMode, all)),
        (
            "publishNotReadyAddresses: true, trafficDistribution: PreferClose",
            "",
            balancing(&zone, Mode::Failover, all),
        ),
    ];
    for (spec, metadata, expected) in cases {
        assert_eq!(service(spec, metadata).unwrap().load_balancing, expected, "{spec}");
    }
    let inherited = mesh(&format!(
        "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, {annotation}}}}}\n---\n\
         {{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: shop}}}}"
    ));
    let service = services(&inherited).into_values().next().unwrap();
    assert_eq!(service.load_balancing, balancing(&node, Mode::Failover, ready));
    let entry = mesh(&entry_yaml("e", "shop", "hosts: [a.b]"));
    let service = services(&entry).into_values().next().unwrap();
    assert_eq!(service.load_balancing, balancing(&[], Mode::Passthrough, all));
}

#[test]
fn hosts_without_address_are_given_one() {
    let addresses_of = |spec: &str| {
        let mesh = mesh(&entry_yaml("e", "shop", spec));
        addresses(&services(&mesh).into_values().next().unwrap())
    };
    let allocated = addresses_of("hosts: [a.b], resolution: DNS");
    assert!(allocated[0].starts_with("240.240."), "{allocated:?}");
    assert!(allocated[1].starts_with("2001:2::"), "{allocated:?}");
    assert_eq!(addresses_of("hosts: [a.b], resolution: DNS"), allocated);
    assert_eq!(
        addresses_of("hosts: [a.b], addresses: [10.0.0.0/8, 'fd00::1']"),
        ["10.0.0.0/8", "fd00::1/128"]
    );
    assert_eq!(addresses_of("hosts: [a.b]"), [""; 0]);
    assert_eq!(addresses_of("hosts: ['*.b'], resolution: DYNAMIC_DNS"), [""; 0]);
}

#[test]
fn the_names_of_ports_are_sent_unless_name_servers_know_the_host() {
    use PortTransport::{Tcp, Udp};

    let names = |spec: &str| {
        let ports = "ports: [{number: 443, name: https, protocol: HTTPS}, \
                     {number: 53, name: dns, protocol: UDP}]";
        let mesh = mesh(&entry_yaml("e", "shop", &format!("hosts: [a.b], {ports}, {spec}")));
        let service = services(&mesh).into_values().next().unwrap();
        let names = Domain::try_from(service).unwrap().port_names.into_iter();
        names.map(|p| (p.name.to_string(), p.transport, p.service_port)).collect::<Vec<_>>()
    };
    let all = [("https".to_owned(), Tcp, 443), ("dns".to_owned(), Udp, 53)];
    for spec in [
        "resolution: STATIC, endpoints: [{address: 192.0.2.1}]",
        "resolution: STATIC, workloadSelector: {labels: {app: a}}",
        "resolution: DNS, endpoints: [{address: c.d}]",
    ] {
        assert_eq!(names(spec), all, "{spec}");
    }
    for spec in ["resolution: DNS", "resolution: NONE", "resolution: DYNAMIC_DNS"] {
        assert_eq!(names(spec), [], "{spec}");
    }
    let cluster = service("ports: [{name: http, port: 80}]", "").unwrap();
    assert!(cluster.extensions.is_empty(), "the cluster's name server knows it");
}

#[test]
fn reported_addresses_stay() {
    let mesh = mesh(
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: \
         {hosts: [a.b], resolution: DNS}, status: {addresses: [{host: a.b, value: 240.240.0.7}, \
         {host: a.b, value: '2001:2::99'}]}}",
    );
    let service = services(&mesh).into_values().next().unwrap();
    assert_eq!(addresses(&service), ["240.240.0.7/32", "2001:2::99/128"]);
}

#[test]
fn an_address_that_another_object_has_already_is_given_up() {
    let mut mesh = mesh(&entry_yaml("e", "shop", "hosts: [a.b], resolution: DNS"));
    let first =
        |mesh: &Mesh, host: &str| addresses(&services(mesh)[&format!("shop/{host}")])[0].clone();
    let address = first(&mesh, "a.b");
    let value = address.trim_end_matches("/32");
    let reported = entry_yaml("f", "shop", "hosts: [c.d], resolution: DNS").replace(
        "}}\n",
        &format!("}}, status: {{addresses: [{{host: c.d, value: {value}}}]}}}}\n"),
    );
    let changes = mesh.apply(applied(&reported));
    let names: Vec<_> = changes.iter().map(|change| change.name.as_str()).collect();
    assert!(names.contains(&"shop/a.b"), "{names:?}");
    assert_eq!(first(&mesh, "c.d"), address);
    assert_ne!(first(&mesh, "a.b"), address);
}

#[test]
fn who_sees_a_service_follows_from_what_it_is_exported_to() {
    let visibility = |export: &str| {
        let mesh = mesh(&entry_yaml("e", "shop", &format!("hosts: [a.b], exportTo: [{export}]")));
        services(&mesh).into_values().next().map(|service| service.visibility())
    };
    assert_eq!(visibility(""), Some(Visibility::Public));
    assert_eq!(visibility("'*'"), Some(Visibility::Public));
    assert_eq!(visibility("."), Some(Visibility::Namespace));
    assert_eq!(visibility("shop"), Some(Visibility::Namespace));
    assert_eq!(visibility("shop, bank"), Some(Visibility::Public));
    assert_eq!(visibility("'~'"), None);
    let annotated = service("", "annotations: {networking.istio.io/exportTo: '., shop'}");
    assert_eq!(annotated.unwrap().visibility(), Visibility::Namespace);
    let by_mesh = mesh(
        &(entry_yaml("e", "shop", "hosts: [a.b]")
            + "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: \
               istio-system}, data: {mesh: 'defaultServiceExportTo: [\".\"]'}}\n"),
    );
    let service = services(&by_mesh).into_values().next().unwrap();
    assert_eq!(service.visibility(), Visibility::Namespace);
}

#[test]
fn one_object_of_a_namespace_is_given_a_host_and_one_of_the_mesh_is_canonical() {
    let host = "hosts: [cart.shop.svc.cluster.local]";
    let service = "---\n{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}}\n";
    let canonical = |mesh: &Mesh| {
        let services = services(mesh).into_values();
        services.map(|s| (s.namespace, s.name, s.canonical)).collect::<Vec<_>>()
    };
    let row =
        |namespace: &str, name: &str, canonical| (namespace.to_owned(), name.to_owned(), canonical);
    let entries = entry_yaml("b", "shop", host)
        + &entry_yaml("a", "shop", host)
        + &entry_yaml("z", "bank", host);
    let without = mesh(&entries);
    assert_eq!(canonical(&without), [row("bank", "z", true), row("shop", "a", false)]);
    let taken = without.warnings().into_values().flatten();
    assert_eq!(taken.filter(|w| matches!(w, Warning::HostTaken { .. })).count(), 1);
    let with = mesh(&(entries + service));
    assert_eq!(canonical(&with), [row("bank", "z", false), row("shop", "cart", true)]);
}

#[test]
fn only_identities_are_accepted_of_endpoints() {
    let spec = "hosts: [a.b], subjectAltNames: ['spiffe://td/ns/a/sa/b', api.example.com]";
    let mesh = mesh(&entry_yaml("e", "shop", spec));
    let service = services(&mesh).into_values().next().unwrap();
    assert_eq!(service.subject_alt_names, ["spiffe://td/ns/a/sa/b"]);
}

#[test]
fn entries_that_waypoints_and_proxies_cannot_follow_are_warned_of() {
    const WAYPOINT: &str = "---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/use-waypoint: w}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: w, namespace: shop}, spec: \
                            {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: \
                            15008, protocol: HBONE}]}, status: {addresses: [{value: 10.9.0.1}]}}
";
    let warned = |spec: &str, more: &str| {
        let spec = format!("hosts: [a.b], addresses: [10.96.0.1], {spec}");
        let mesh = mesh(&(entry_yaml("e", "shop", &spec) + more));
        let warnings = mesh.warnings().into_values().flatten();
        warnings.map(|warning| warning.to_string()).collect::<Vec<_>>()
    };
    let file = "resolution: STATIC, endpoints: [{address: 10.0.0.1}, {address: 'unix:///a'}]";
    for (spec, more, expected) in [
        ("resolution: NONE", "", None),
        ("resolution: STATIC", WAYPOINT, None),
        ("resolution: NONE", WAYPOINT, Some("spec.resolution: with NONE its waypoint knows no")),
        (file, "", Some("spec.endpoints[1].address has no effect: proxies reach no files")),
    ] {
        let found = warned(spec, more);
        assert_eq!(found.len(), usize::from(expected.is_some()), "{spec}: {found:?}");
        assert!(
            found.first().is_none_or(|found| found.starts_with(expected.unwrap())),
            "{found:?}"
        );
    }
}
