//! What the proxy answers, to clients of every kind.

use anyhow::Result;
use fairlead_lab::{ServiceEntry, WorkloadEntry};

use super::{B, B_ADDRESS, Scene, first_line};
use crate::mesh::HTTP;

/// Endpoints of a service whose addresses do not fit a datagram.
const MANY: u8 = 60;

#[test]
fn the_c_library_finds_services_by_all_their_names() -> Result<()> {
    let scene = Scene::new("dns-glibc")?;
    let (a, c) = (&scene.mesh.a, &scene.mesh.c);
    for (pod, name) in [
        (a, "b"),
        (a, "b.shop"),
        (a, "b.shop.svc"),
        (a, B),
        (a, "b.shop.svc.cluster.local."),
        (c, "b.shop"),
        (c, "b.shop.svc"),
    ] {
        let said = scene.with_resolv_conf(pod, &format!("getent ahosts {name}"))?.checked()?.stdout;
        assert!(said.contains(B_ADDRESS) && said.contains("fd00:96::10"), "{name}: {said}");
    }
    // Not a name of this namespace: the name server is asked for all that it may be short for.
    scene.with_resolv_conf(c, "getent ahostsv4 missing")?;
    assert_ne!(scene.times_asked("missing.tools.svc.cluster.local")?, 0);
    assert_eq!(scene.times_asked(B)?, 0);

    let page = scene.with_resolv_conf(a, "curl -sS --max-time 10 http://b/path")?.checked()?;
    assert!(page.stdout.contains("/path"), "{}", page.stdout);
    let script = "/usr/bin/python3 -c 'import socket; print(socket.getaddrinfo(\"b\", 80))'";
    let said = scene.with_resolv_conf(a, script)?.checked()?.stdout;
    assert!(said.contains(B_ADDRESS), "{said}");
    Ok(())
}

#[test]
fn a_name_that_a_search_domain_was_added_to_is_an_alias() -> Result<()> {
    let scene = Scene::new("dns-alias")?;
    let asked = "b.shop.shop.svc.cluster.local";
    let said = scene.dig(&scene.mesh.a, &["+noall", "+answer", "+comments", asked])?.stdout;
    assert!(said.contains("CNAME\tb.shop."), "{said}");
    assert!(said.contains(B_ADDRESS), "{said}");
    // Flags: an answer, authoritative, recursion desired and available.
    assert!(said.contains("flags: qr aa rd ra;"), "{said}");
    Ok(())
}

#[test]
fn headless_services_wildcards_and_hosts_outside_have_their_addresses() -> Result<()> {
    let mut scene = Scene::new("dns-kinds")?;
    let mesh = &mut scene.mesh;
    let (a, b, d) = (mesh.a.clone(), mesh.b.clone(), mesh.d.clone());
    mesh.config.add_service(ServiceEntry::new("shop", "db").port(80, HTTP), [&b, &d]);
    for (host, number) in [("api.example.com", 1), ("*.example.com", 2)] {
        let mut entry = ServiceEntry::new("shop", "ext").address([240, 240, 0, number]);
        host.clone_into(&mut entry.hostname);
        mesh.config.add_service(entry, []);
    }
    mesh.apply()?;
    let mut endpoints = [b.ipv4().to_string(), d.ipv4().to_string()];
    endpoints.sort_unstable();
    assert_eq!(scene.dig_short(&a, &["db.shop.svc.cluster.local"])?, endpoints);
    let mut endpoints = [b.ipv6().to_string(), d.ipv6().to_string()];
    endpoints.sort_unstable();
    assert_eq!(scene.dig_short(&a, &["db.shop.svc.cluster.local", "AAAA"])?, endpoints);
    assert_eq!(scene.dig_short(&a, &["api.example.com"])?, ["240.240.0.1"]);
    assert_eq!(scene.dig_short(&a, &["any.thing.example.com"])?, ["240.240.0.2"]);
    // The name exists, and has no address of the family.
    let said = scene.dig(&a, &["api.example.com", "AAAA"])?.stdout;
    assert!(said.contains("status: NOERROR") && said.contains("ANSWER: 0"), "{said}");
    assert_eq!(scene.times_asked("api.example.com")?, 0);
    Ok(())
}

#[test]
fn an_answer_that_does_not_fit_is_cut_and_whole_over_tcp() -> Result<()> {
    let mut scene = Scene::new("dns-long")?;
    let mesh = &mut scene.mesh;
    let a = mesh.a.clone();
    mesh.config.add_service(ServiceEntry::new("shop", "many"), []);
    let key = ServiceEntry::new("shop", "many").key();
    for n in 0..MANY {
        let mut workload = WorkloadEntry::of(&mesh.b);
        workload.uid = format!("many-{n}");
        workload.name = format!("many-{n}");
        workload.addresses = vec![[10, 77, 0, n].into()];
        workload.services = [(key.clone(), fairlead_lab::PortList::default())].into();
        mesh.config.workloads.push(workload);
    }
    mesh.apply()?;
    let name = "many.shop.svc.cluster.local";
    // dig says that it takes 1,232 bytes unless it is told not to, and asks again over TCP.
    for options in [&["+noedns", name][..], &["+bufsize=600", name], &["+tcp", name]] {
        assert_eq!(scene.dig_short(&a, options)?.len(), usize::from(MANY), "{options:?}");
    }
    let said = scene.dig(&a, &["+noedns", "+ignore", name])?.stdout;
    assert!(said.contains("flags: qr aa tc rd ra;"), "{said}");
    let said = Scene::ask(&a, "musl", scene.servers()[0], name)?;
    let first = first_line(&said)?;
    // A client that knows no TCP has as many as fit.
    assert!(first.contains(" cut:") && first.matches("10.77.0.").count() > 20, "{said}");
    let labels = [("request_protocol", "tcp")];
    scene.assert_metric("istio_dns_requests_total", &labels, 3)
}

#[test]
fn a_name_of_the_mesh_exists_for_every_type_of_record() -> Result<()> {
    let mut scene = Scene::new("dns-types")?;
    let mut entry = ServiceEntry::new("shop", "ext").address([240, 240, 0, 1]);
    "missing.example".clone_into(&mut entry.hostname);
    scene.mesh.config.add_service(entry, []);
    scene.mesh.apply()?;
    let a = scene.mesh.a.clone();
    for tcp in ["+notcp", "+tcp"] {
        // The name server says that there is no such name.
        let said = scene.dig(&a, &[tcp, "missing.example", "TXT"])?.stdout;
        assert!(said.contains("status: NOERROR") && said.contains("ANSWER: 0"), "{said}");
        let said = scene.dig(&a, &[tcp, "missing.other", "TXT"])?.stdout;
        assert!(said.contains("status: NXDOMAIN"), "{said}");
    }
    assert_eq!(scene.dig_short(&a, &["missing.example"])?, ["240.240.0.1"]);
    Ok(())
}
